//! What every adapter of a port must do, the simulated ones like the real ones.

use std::path::Path;
use std::time::Duration;

use contract::provisioner::Script;
use provisioner::ports::{
    Guest, GuestShell, Hypervisor, HypervisorError, Machine, Power, ScriptRun, ShellError, ShutdownMode,
};
use testkit::eventually_some;

/// A machine that nobody knows.
const NOBODY: &str = "00000000-0000-4000-8000-0000000000ff";

/// How long a guest may take to do what it was asked for.
pub async fn hypervisor(adapter: &dyn Hypervisor, machine: &Machine, exports: &Path, patience: Duration) {
    let uuid = &machine.uuid;
    adapter.check().await.expect("it answers");
    adapter.prepare().await.expect("prepared");
    adapter.prepare().await.expect("prepared before");

    assert_eq!(adapter.power(NOBODY).await, Ok(None));
    adapter.destroy(NOBODY).await.expect("calm");
    adapter.undefine(NOBODY).await.expect("calm");
    adapter.close_exports(NOBODY, exports).await.expect("calm");
    let unknown = adapter.start(NOBODY).await;
    assert!(matches!(unknown, Err(HypervisorError::Unknown(_))), "{unknown:?}");

    adapter.define(machine).await.expect("defined");
    adapter.define(machine).await.expect("defined before");
    assert_eq!(adapter.power(uuid).await, Ok(Some(Power::Off)));
    let marked = adapter.marked(&machine.mark.realm).await.expect("a list");
    let found = marked.iter().find(|found| found.uuid == *uuid).expect("ours is in it");
    assert_eq!((found.power, &found.mark), (Power::Off, &machine.mark));
    assert_eq!(adapter.marked("another-realm").await, Ok(Vec::new()));
    let mut namesake = machine.clone();
    namesake.uuid = NOBODY.into();
    adapter.define(&namesake).await.expect_err("the name is another machine's");

    adapter.start(uuid).await.expect("started");
    adapter.start(uuid).await.expect("started before");
    assert_eq!(adapter.power(uuid).await, Ok(Some(Power::Running)));
    eventually_some("its agent answers", patience, async || {
        adapter.agent_answers(uuid).await.expect("an answer").then_some(())
    })
    .await;
    eventually_some("it has an address", patience, async || {
        adapter.address(uuid, &machine.mac).await.expect("an answer")
    })
    .await;

    adapter.freeze(uuid).await.expect("frozen");
    let opened = adapter.open_exports(uuid, &machine.disks, exports).await;
    adapter.thaw(uuid).await.expect("thawed");
    adapter.thaw(uuid).await.expect("thawed before");
    for (export, disk) in opened.expect("opened").iter().zip(&machine.disks) {
        assert_eq!(export.disk, disk.name);
        std::os::unix::net::UnixStream::connect(&export.socket).expect("somebody serves it");
    }
    adapter.close_exports(uuid, exports).await.expect("closed");
    adapter.close_exports(uuid, exports).await.expect("closed before");

    adapter.request_shutdown(uuid, ShutdownMode::Agent).await.expect("asked");
    eventually_some("it is off", patience, async || {
        (adapter.power(uuid).await == Ok(Some(Power::Off))).then_some(())
    })
    .await;
    adapter.request_shutdown(uuid, ShutdownMode::Acpi).await.expect("calm");
    adapter.open_exports(uuid, &machine.disks, exports).await.expect_err("it is off");
    adapter.start(uuid).await.expect("started");
    adapter.destroy(uuid).await.expect("destroyed");
    adapter.destroy(uuid).await.expect("destroyed before");
    assert_eq!(adapter.power(uuid).await, Ok(Some(Power::Off)));
    adapter.undefine(uuid).await.expect("undefined");
    adapter.undefine(uuid).await.expect("undefined before");
    assert_eq!(adapter.power(uuid).await, Ok(None));
}

/// `guest` is up, and was never entered before.
pub async fn guest_shell(adapter: &dyn GuestShell, guest: &Guest) {
    let host_key = adapter.reach(guest).await.expect("entered");
    let known = Guest { host_key: Some(host_key.clone()), ..guest.clone() };
    assert_eq!(adapter.reach(&known).await, Ok(host_key));
    let other = Guest { host_key: Some("another".into()), ..guest.clone() };
    let stranger = adapter.reach(&other).await;
    assert!(matches!(stranger, Err(ShellError::HostKeyChanged { .. })), "{stranger:?}");
    let nobody = Guest {
        // Kept for documentation (RFC 5737): nobody is there.
        address: std::net::Ipv4Addr::new(127, 255, 255, 254).into(),
        ..guest.clone()
    };
    let unreachable = adapter.reach(&nobody).await;
    assert!(matches!(unreachable, Err(ShellError::Unreachable(_))), "{unreachable:?}");

    let script = Script {
        name: "count.sh".into(),
        text: "#!/bin/sh\necho \"$WORD\" >>/root/counted\n[ \"$(wc -l </root/counted)\" = 1 ]\n".into(),
    };
    let env = std::collections::BTreeMap::from([("WORD".to_owned(), "it's".to_owned())]);
    let run = ScriptRun { at: 0, script: &script, env: &env, within: Duration::from_secs(60) };
    adapter.run(&known, &run).await.expect("it ran");
    adapter.run(&known, &run).await.expect("it is not run again");
}
