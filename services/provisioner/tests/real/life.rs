//! What the provisioner does, on real VMs.

use bus::CallError;
use contract::provisioner::{
    CloseDisks, Consistency, CreateReservedVm, DiskSize, ListVms, OpenDisks, OpenDisksRefused, PauseReason,
    RemoveVm, ReserveVmName, StartVm, StartedVm, StopVm, Vm, VmRefused, VmState,
};
use contract::{ByteCount, DiskName};
use operation::new_id;
use provisioner::ports::{Guest, ScriptToRun};
use provisioner_domain::PowerState;

use crate::realm::{BOOT, Realm, greeter, read_export, virsh};
use crate::support::{ANSWER, CallHere, script, vm};

/// The identity that a Debian guest has, shown by its web server.
const IDENTITY: &str = "#!/bin/sh\nset -e\nmkdir -p /var/lib/systemd\n\
    echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa >/etc/machine-id\necho old >/var/lib/systemd/random-seed\n\
    ln -s /etc/machine-id /etc/hosts /var/lib/systemd/random-seed /www/\n";

#[actix::test]
async fn a_vm_is_created_read_copied_and_removed() {
    let Some(realm) = Realm::enter().await else { return };
    realm.add_seed().await;
    let mut wanted = greeter("web", "it's alive");
    wanted.install.push(script("identity.sh", IDENTITY));
    realm.create(wanted).await;
    let created = realm.get("web").await;
    assert_eq!((created.state, created.hypervisor.as_str()), (VmState::Ready, "libvirt"));
    // A power cut right after it was reported as created: nothing that its script wrote is lost.
    realm.state.hypervisor.destroy(&created.uuid).await.expect("ended");
    testkit::eventually_some("it is ready again", BOOT * 2, async || {
        let now = realm.get("web").await;
        let on = realm.state.hypervisor.power(&created.uuid).await.ok()? == PowerState::Running;
        (on && now.state == VmState::Ready && now.locked_by.is_none()).then_some(())
    })
    .await;
    assert_eq!(realm.page("web").await, "it's alive\n");

    // Read while it runs, and a copy created from what was read.
    let backup = new_id();
    let open = OpenDisks { vm: vm("web"), operation_id: backup.clone() };
    let opened = realm.bus.call_here(&open, ANSWER * 3).await.expect("opened");
    assert_eq!(opened.consistency, Consistency::Filesystem);
    let again = realm.bus.call_here(&open, ANSWER * 3).await.expect("the same exports");
    assert_eq!(opened, again);

    let mut copy = opened.definition.clone();
    copy.name = vm("web2");
    copy.domains.clear();
    let restore = new_id();
    let reserve = ReserveVmName {
        overcommit: false,
        definition: copy,
        disks: vec![DiskSize { disk: DiskName::new("vda").expect("a name"), size: ByteCount::mib(512) }],
        operation_id: restore.clone(),
    };
    let reserved = realm.bus.call_here(&reserve, ANSWER).await.expect("reserved");
    read_export(&opened.exports[0], &reserved.disks[0].path);
    let close = CloseDisks { operation_id: backup.clone() };
    let closed = realm.bus.call_here(&close, ANSWER * 3).await.expect("closed");
    assert!(closed.was_open);
    assert!(!realm.bus.call_here(&close, ANSWER).await.expect("a no-op").was_open);
    let exports = std::fs::read_dir(realm.folder.path().join("exports")).expect("a folder");
    assert_eq!(exports.count(), 0);

    realm.run(CreateReservedVm { vm: vm("web2"), reserved_by: restore, operation_id: None }).await;
    let copied = realm.get("web2").await;
    assert_ne!((&copied.uuid, &copied.mac), (&created.uuid, &created.mac));
    assert_eq!(realm.page("web2").await, "it's alive\n");
    let machine_id = |vm: &Vm| vm.uuid.as_str().replace('-', "") + "\n";
    assert_eq!(realm.file("web2", "machine-id").await, machine_id(&copied));
    assert_ne!(realm.file("web2", "random-seed").await, realm.file("web", "random-seed").await);
    assert_eq!(realm.file("web2", "hosts").await.matches("127.0.1.1 web2 web2\n").count(), 1);
    assert!(realm.file("web", "machine-id").await.starts_with("aaaa"), "the original keeps its own");

    // Suspended by a person: shown with its reason, and resumed by a start that says so.
    let uuid = created.uuid.as_str();
    virsh(&["suspend", uuid]);
    testkit::eventually_some("it is shown as paused", ANSWER, async || {
        (realm.get("web").await.pause_reason == Some(PauseReason::User)).then_some(())
    })
    .await;
    assert_eq!(realm.get("web").await.state, VmState::Paused);
    let start = StartVm { vm: vm("web"), operation_id: None };
    let output = realm.run(start.clone()).await.output.expect("an output");
    let started: StartedVm = serde_json::from_value(output).expect("a started VM");
    assert_eq!((started.vm.state, started.resumed_pause_reason), (VmState::Ready, Some(PauseReason::User)));
    assert_eq!(realm.page("web").await, "it's alive\n");

    // A snapshot that a person made: what the guest writes from then on is in another file, and is never lost.
    virsh(&["snapshot-create-as", uuid, "ext", "--disk-only"]);
    let write = script("write.sh", "#!/bin/sh\necho written >/www/index.html\n");
    let record = realm.state.registry.vm(&vm("web")).await.expect("it exists");
    let address = record.address().expect("it runs");
    let guest = Guest { address, uuid: created.uuid.clone(), host_key: record.host_key.clone() };
    let run = ScriptToRun { at: 9, script: &write, env: &Default::default(), timeout: BOOT };
    realm.state.shell.run(&guest, &run).await.expect("it ran");
    let stop = StopVm { vm: vm("web"), operation_id: None };
    realm.run(stop.clone()).await;
    let refused = realm.bus.call(&start, ANSWER).await.expect_err("its disk is another one");
    assert!(matches!(&refused, CallError::Refused(VmRefused::DisksChanged { .. })), "{refused}");
    let refused = realm.bus.call_here(&open, ANSWER).await.expect_err("its disk is another one");
    assert!(matches!(&refused, CallError::Refused(OpenDisksRefused::DisksChanged { .. })), "{refused}");
    testkit::eventually_some("it says what to do", ANSWER, async || realm.get("web").await.problem).await;
    virsh(&["start", uuid]);
    testkit::eventually_some("it is ready", BOOT, async || {
        (realm.get("web").await.state == VmState::Ready).then_some(())
    })
    .await;
    virsh(&["blockcommit", uuid, "vda", "--shallow", "--active", "--pivot", "--wait"]);
    virsh(&["snapshot-delete", uuid, "ext", "--metadata"]);
    assert_eq!(realm.page("web").await, "written\n");

    // Off, read while off, and on again.
    let stopped = realm.run(stop).await;
    assert_eq!(realm.get("web").await.state, VmState::Stopped, "{stopped:?}");
    let opened = realm.bus.call_here(&open, ANSWER * 3).await.expect("opened");
    assert_eq!(opened.consistency, Consistency::PoweredOff);
    read_export(&opened.exports[0], &realm.folder.path().join("off.raw"));
    realm.bus.call_here(&close, ANSWER * 3).await.expect("closed");
    realm.run(start).await;
    assert_eq!(realm.get("web").await.problem, None);
    assert_eq!(realm.page("web").await, "written\n");

    for name in ["web", "web2"] {
        realm.run(RemoveVm { vm: vm(name), operation_id: None }).await;
    }
    assert_eq!(realm.bus.call(&ListVms {}, ANSWER).await.expect("a list"), []);
    let marked = realm.state.hypervisor.marked(&realm.state.realm).await;
    assert_eq!(marked.expect("a list"), []);
}
