//! The main job on real machines.

use contract::provisioner::{
    AdoptVm, CloseDisks, Consistency, DiskSize, ListVms, OpenDisks, RemoveVm, ReserveVm, StartVm, StopVm,
    VmState,
};
use contract::{ByteCount, DiskName};
use operation::new_id;

use crate::realm::{Realm, greeter, read_export};
use crate::support::{ANSWER, vm};

#[actix::test]
async fn a_machine_is_made_read_copied_and_removed() {
    let Some(realm) = Realm::enter().await else { return };
    realm.add_seed().await;
    realm.create(greeter("web", "it's alive")).await;
    let made = realm.get("web").await;
    assert_eq!((made.state, made.hypervisor.as_str()), (VmState::Ready, "libvirt"));
    assert_eq!(realm.page("web").await, "it's alive\n");

    // Read while it runs, and made anew from what was read.
    let backup = new_id();
    let open = OpenDisks { vm: vm("web"), operation_id: backup.clone() };
    let opened = realm.bus.call(&open, ANSWER * 3).await.expect("opened");
    assert_eq!(opened.consistency, Consistency::Filesystem);
    let again = realm.bus.call(&open, ANSWER * 3).await.expect("the same exports");
    assert_eq!(opened, again);

    let mut copy = opened.definition.clone();
    copy.name = vm("web2");
    copy.domains.clear();
    let restore = new_id();
    let reserve = ReserveVm {
        definition: copy,
        disks: vec![DiskSize { disk: DiskName::new("vda").expect("a name"), size: ByteCount::mib(512) }],
        operation_id: restore.clone(),
    };
    let reserved = realm.bus.call(&reserve, ANSWER).await.expect("reserved");
    read_export(&opened.exports[0], &reserved.disks[0].path);
    let close = CloseDisks { operation_id: backup.clone() };
    let closed = realm.bus.call(&close, ANSWER * 3).await.expect("closed");
    assert!(closed.was_open);
    assert!(!realm.bus.call(&close, ANSWER).await.expect("calm").was_open);
    let exports = std::fs::read_dir(realm.state.path().join("exports")).expect("a folder");
    assert_eq!(exports.count(), 0);

    let adopt = AdoptVm { vm: vm("web2"), reserved_by: restore, operation_id: new_id() };
    let begun = realm.bus.call(&adopt, ANSWER).await.expect("begun");
    realm.done(begun.operation()).await;
    let copied = realm.get("web2").await;
    assert_ne!((&copied.uuid, &copied.mac), (&made.uuid, &made.mac));
    assert_eq!(realm.page("web2").await, "it's alive\n");

    // Off, read while off, and on again.
    let stop = StopVm { vm: vm("web"), operation_id: None };
    let begun = realm.bus.call(&stop, ANSWER).await.expect("begun");
    let stopped = realm.done(begun.operation()).await;
    assert_eq!(realm.get("web").await.state, VmState::Stopped, "{stopped:?}");
    let opened = realm.bus.call(&open, ANSWER * 3).await.expect("opened");
    assert_eq!(opened.consistency, Consistency::Off);
    read_export(&opened.exports[0], &realm.state.path().join("off.raw"));
    realm.bus.call(&close, ANSWER * 3).await.expect("closed");
    let start = StartVm { vm: vm("web"), operation_id: None };
    let begun = realm.bus.call(&start, ANSWER).await.expect("begun");
    realm.done(begun.operation()).await;
    assert_eq!(realm.page("web").await, "it's alive\n");

    for name in ["web", "web2"] {
        let remove = RemoveVm { vm: vm(name), operation_id: None };
        let begun = realm.bus.call(&remove, ANSWER).await.expect("begun");
        realm.done(begun.operation()).await;
    }
    assert_eq!(realm.bus.call(&ListVms {}, ANSWER).await.expect("a list"), []);
    let marked = realm.house.state.hypervisor.marked("loam").await;
    assert_eq!(marked.expect("a list"), []);
}
