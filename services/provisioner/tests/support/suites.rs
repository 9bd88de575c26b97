//! What every adapter of a port must do, the simulated ones like the real ones.

use std::path::Path;
use std::time::Duration;

use contract::VmUuid;
use contract::provisioner::{PauseReason, Script};
use provisioner::ports::{
    Guest, GuestShell, GuestShutdownMethod, Hypervisor, HypervisorError, HypervisorErrorKind, ScriptToRun,
    ShellError, VmSpec,
};
use provisioner_domain::PowerState;
use testkit::eventually_some;

async fn power(adapter: &dyn Hypervisor, uuid: &VmUuid) -> PowerState {
    adapter.power(uuid).await.expect("an answer")
}

fn is_unknown(refused: Result<(), HypervisorError>) {
    assert_eq!(refused.expect_err("there is no such VM").kind, HypervisorErrorKind::UnknownVm);
}

/// `wait_max`: how long a guest may take to do what it was asked for.
pub async fn hypervisor(adapter: &dyn Hypervisor, spec: &VmSpec, exports: &Path, wait_max: Duration) {
    let uuid = &spec.uuid;
    let unknown = VmUuid::new("00000000-0000-4000-8000-0000000000ff").expect("a UUID");
    adapter.check().await.expect("it answers");
    adapter.prepare().await.expect("prepared");
    adapter.prepare().await.expect("idempotent");

    assert_eq!(power(adapter, &unknown).await, PowerState::Missing);
    adapter.destroy(&unknown).await.expect("a no-op");
    adapter.undefine(&unknown).await.expect("a no-op");
    adapter.close_exports(&unknown, exports).await.expect("a no-op");
    is_unknown(adapter.start(&unknown).await);
    is_unknown(adapter.resume(&unknown).await);

    adapter.define(spec).await.expect("defined");
    adapter.define(spec).await.expect("idempotent");
    assert_eq!(power(adapter, uuid).await, PowerState::Off);
    let marked = adapter.marked(&spec.mark.realm).await.expect("a list");
    let found = marked.iter().find(|found| found.uuid == *uuid).expect("ours is in it");
    assert_eq!((found.power, &found.mark), (PowerState::Off, &spec.mark));
    let other_realm = contract::Realm::new("another-realm").expect("a realm");
    assert_eq!(adapter.marked(&other_realm).await.expect("a list"), []);
    let mut namesake = spec.clone();
    namesake.uuid = unknown;
    adapter.define(&namesake).await.expect_err("another VM has the name");

    adapter.start(uuid).await.expect("started");
    adapter.start(uuid).await.expect("idempotent");
    assert_eq!(power(adapter, uuid).await, PowerState::Running);
    eventually_some("its agent answers", wait_max, async || {
        adapter.agent_answers(uuid).await.expect("an answer").then_some(())
    })
    .await;
    eventually_some("it has an address", wait_max, async || {
        adapter.address(uuid, &spec.mac).await.expect("an answer")
    })
    .await;

    paused(adapter, spec, wait_max).await;

    adapter.freeze(uuid).await.expect("frozen");
    let opened = adapter.open_exports(uuid, &spec.disks, exports).await;
    adapter.thaw(uuid).await.expect("thawed");
    adapter.thaw(uuid).await.expect("idempotent");
    for (export, disk) in opened.expect("opened").iter().zip(&spec.disks) {
        assert_eq!(export.disk, disk.name);
        std::os::unix::net::UnixStream::connect(&export.socket).expect("a server listens");
    }
    adapter.close_exports(uuid, exports).await.expect("closed");
    adapter.close_exports(uuid, exports).await.expect("idempotent");

    adapter.request_shutdown(uuid, GuestShutdownMethod::Agent).await.expect("asked");
    eventually_some("it is off", wait_max, async || {
        (power(adapter, uuid).await == PowerState::Off).then_some(())
    })
    .await;
    adapter.request_shutdown(uuid, GuestShutdownMethod::Acpi).await.expect("a no-op");
    adapter.open_exports(uuid, &spec.disks, exports).await.expect_err("it is off");
    adapter.suspend(uuid).await.expect_err("it is off");
    adapter.start(uuid).await.expect("started");
    adapter.destroy(uuid).await.expect("destroyed");
    adapter.destroy(uuid).await.expect("idempotent");
    assert_eq!(power(adapter, uuid).await, PowerState::Off);
    adapter.undefine(uuid).await.expect("undefined");
    adapter.undefine(uuid).await.expect("idempotent");
    assert_eq!(power(adapter, uuid).await, PowerState::Missing);
}

/// A VM that is off, whose first disk `replace` puts another file in place of, as a snapshot does: that is neither lost
/// nor started as if nothing had happened.
pub async fn changed_disk(adapter: &dyn Hypervisor, spec: &VmSpec, replace: impl AsyncFnOnce()) {
    let uuid = &spec.uuid;
    is_unknown(adapter.disks(uuid).await.map(drop));
    assert_eq!(adapter.definition(uuid).await.expect("an answer"), None);
    adapter.define(spec).await.expect("defined");
    let (first, file) = (&spec.disks[0].name, &spec.disks[0].image.path);
    let path = async || {
        let disks = adapter.disks(uuid).await.expect("an answer");
        disks.into_iter().find(|disk| disk.name == first.as_str()).expect("it has it").path.expect("a file")
    };
    assert_eq!(path().await, *file);

    replace().await;
    let replaced = path().await;
    assert_ne!(replaced, *file);
    let refused = adapter.define(spec).await.expect_err("its disk is another one");
    assert_eq!(refused.kind, HypervisorErrorKind::DisksChanged);
    let reason = contract::message::with_causes(&refused);
    for part in [first.to_string(), replaced.display().to_string(), file.display().to_string()] {
        assert!(reason.contains(&part), "{reason}");
    }
    assert_eq!(path().await, replaced, "it is left as it is");
    let marked = adapter.marked(&spec.mark.realm).await.expect("a list");
    let found = marked.iter().find(|found| found.uuid == *uuid).expect("ours is in it");
    assert_eq!(found.disks, adapter.disks(uuid).await.expect("an answer"));

    let definition = adapter.definition(uuid).await.expect("an answer").expect("it is defined");
    adapter.undefine(uuid).await.expect("undefined");
    adapter.restore_definition(uuid, &definition).await.expect("defined again");
    adapter.restore_definition(uuid, &definition).await.expect("idempotent");
    assert_eq!(path().await, replaced);
    adapter.undefine(uuid).await.expect("undefined");
}

/// A running VM is suspended and resumed; starting it does not resume it.
async fn paused(adapter: &dyn Hypervisor, spec: &VmSpec, wait_max: Duration) {
    let uuid = &spec.uuid;
    adapter.resume(uuid).await.expect("a no-op");
    adapter.suspend(uuid).await.expect("suspended");
    adapter.suspend(uuid).await.expect("idempotent");
    let suspended = PowerState::Paused(PauseReason::User);
    assert_eq!(power(adapter, uuid).await, suspended);
    let marked = adapter.marked(&spec.mark.realm).await.expect("a list");
    assert_eq!(marked.iter().find(|found| found.uuid == *uuid).expect("ours").power, suspended);
    adapter.start(uuid).await.expect("a no-op");
    assert_eq!(power(adapter, uuid).await, suspended);
    adapter.resume(uuid).await.expect("resumed");
    assert_eq!(power(adapter, uuid).await, PowerState::Running);
    eventually_some("its agent answers again", wait_max, async || {
        adapter.agent_answers(uuid).await.expect("an answer").then_some(())
    })
    .await;
}

/// `guest` is up, and nobody has logged in to it yet.
pub async fn guest_shell(adapter: &dyn GuestShell, guest: &Guest) {
    let host_key = adapter.reach(guest).await.expect("logged in");
    let known = Guest { host_key: Some(host_key.clone()), ..guest.clone() };
    assert_eq!(adapter.reach(&known).await, Ok(host_key));
    let other = Guest { host_key: Some("another".into()), ..guest.clone() };
    let changed = adapter.reach(&other).await;
    assert!(matches!(changed, Err(ShellError::HostKeyChanged { .. })), "{changed:?}");
    let no_guest = Guest {
        // No guest has this address.
        address: std::net::Ipv4Addr::new(127, 255, 255, 254).into(),
        ..guest.clone()
    };
    let unreachable = adapter.reach(&no_guest).await;
    assert!(matches!(unreachable, Err(ShellError::Unreachable(_))), "{unreachable:?}");

    let script = Script {
        name: "count.sh".into(),
        text: "#!/bin/sh\necho \"$GREETING\" >>/root/counted\necho this was count.sh\n\
               [ \"$(wc -l </root/counted)\" = 1 ]\n"
            .into(),
    };
    let env = std::collections::BTreeMap::from([("GREETING".to_owned(), "it's".to_owned())]);
    let run = ScriptToRun { at: 0, script: &script, env: &env, timeout: Duration::from_secs(60) };
    let output = adapter.run(&known, &run).await.expect("it ran");
    assert!(output.contains("count.sh"), "{output}");
    adapter.run(&known, &run).await.expect("it is not run again");
    let name = "shell".parse().expect("a name");
    adapter.renew_identity(&known, &name).await.expect("renewed");
    adapter.renew_identity(&known, &name).await.expect("idempotent");
    adapter.flush(&known).await.expect("written");
    adapter.flush(&known).await.expect("idempotent");
    let unreachable = adapter.flush(&no_guest).await;
    assert!(matches!(unreachable, Err(ShellError::Unreachable(_))), "{unreachable:?}");
}
