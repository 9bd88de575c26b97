//! Every promise of this crate, against a real libvirtd, a real QEMU and the tiny guest:
//!
//! ```text
//! tests/harness/realm cargo nextest run -p provisioner-libvirt
//! ```
//!
//! Outside a realm these tests are skipped, and print that; where `CI` is set that is an error.

mod others;
mod realm;

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use provisioner_libvirt::accelerator::{VirtTypePreference, boots, choose};
use provisioner_libvirt::backup::{BackupDisk, BackupSpec, CheckpointDeletion};
use provisioner_libvirt::lifecycle::ShutdownMode;
use provisioner_libvirt::network::{Forward, NetworkSpec};
use provisioner_libvirt::qemu_user::QemuUser;
use provisioner_libvirt::{
    CallClass, Deadlines, DiskError, DomainState, EnsureOutcome, Error, PauseReason, Uuid, VirtType,
};

use realm::{Realm, eventually};

/// An emulated guest boots in seven seconds on an idle machine; a busy one may take ten times that.
const BOOT: Duration = Duration::from_secs(120);
/// What needs no guest.
const MOMENT: Duration = Duration::from_secs(20);

#[test]
fn a_network_is_created_once_however_many_callers_ask_for_it_at_once() {
    let Some(realm) = Realm::shared() else { return };
    let spec = NetworkSpec {
        name: "twice".into(),
        bridge: "twice0".into(),
        host_address: Ipv4Addr::new(10, 106, 0, 1),
        prefix_length: 24,
        dhcp_range: (Ipv4Addr::new(10, 106, 0, 10), Ipv4Addr::new(10, 106, 0, 20)),
        forward: Forward::Isolated,
    };
    let asking = |_| {
        let (mut connection, spec) = (realm.connection(), spec.clone());
        std::thread::spawn(move || connection.ensure_network(&spec).expect("a network"))
    };
    let asked: Vec<_> = (0..3).map(asking).collect();
    let changes: Vec<EnsureOutcome> =
        asked.into_iter().map(|asked| asked.join().expect("no panic")).collect();
    assert_eq!(changes.iter().filter(|change| **change == EnsureOutcome::Changed).count(), 1, "{changes:?}");

    let mut connection = realm.connection();
    let other = NetworkSpec { host_address: Ipv4Addr::new(10, 107, 0, 1), ..spec.clone() };
    let differs = connection.ensure_network(&other);
    assert!(matches!(differs, Err(Error::NetworkDiffers { .. })), "{differs:?}");
    assert_eq!(connection.remove_network("twice").expect("it exists"), EnsureOutcome::Changed);
    assert_eq!(connection.remove_network("twice").expect("gone is fine"), EnsureOutcome::AlreadyInPlace);
}

#[test]
fn a_machine_is_defined_run_and_removed_and_every_call_may_be_repeated() {
    let Some(realm) = Realm::shared() else { return };
    let mut connection = realm.connection();
    connection.ensure_network(&realm.network()).expect("a network");
    let machine = realm.machine("whole", 1 << 30);
    let (uuid, mac) = (machine.spec.uuid, machine.mac());

    assert_eq!(connection.power(uuid).expect("an answer"), None);
    assert_eq!(connection.define(&machine.spec).expect("defined"), EnsureOutcome::Changed);
    assert_eq!(connection.define(&machine.spec).expect("defined before"), EnsureOutcome::AlreadyInPlace);
    assert_eq!(connection.power(uuid).expect("an answer"), Some(DomainState::Off));
    assert_eq!(connection.find(&machine.spec.name).expect("an answer"), Some(uuid));
    assert_eq!(connection.mark(uuid).expect("an answer").as_ref(), Some(&machine.spec.mark));

    assert_eq!(connection.start(uuid).expect("started"), EnsureOutcome::Changed);
    assert_eq!(connection.start(uuid).expect("started before"), EnsureOutcome::AlreadyInPlace);
    let found = connection.marked_domains().expect("a list");
    let found = found.iter().find(|found| found.uuid == uuid).expect("ours is in it");
    assert_eq!((found.power, &found.mark), (DomainState::Running, &machine.spec.mark));

    let silent = connection.agent_ping(uuid);
    assert!(
        matches!(silent, Err(Error::AgentSilent { .. })),
        "the agent of a guest that still boots does not answer: {silent:?}"
    );
    eventually(BOOT, || connection.agent_ping(uuid).is_ok());
    let address = eventually_some(BOOT, || connection.address(uuid, mac).expect("an answer"));
    assert!(address.to_string().starts_with("10.105.0."), "{address}");
    assert!(connection.freeze(uuid).expect("frozen") >= 1);
    assert!(connection.thaw(uuid).expect("thawed") >= 1);
    assert_eq!(connection.thaw(uuid).expect("nothing to thaw"), 0);

    connection.request_shutdown(uuid, ShutdownMode::Agent).expect("asked");
    eventually(BOOT, || connection.power(uuid).expect("an answer") == Some(DomainState::Off));
    let off = connection.request_shutdown(uuid, ShutdownMode::Agent).expect("off is what was wanted");
    assert_eq!(off, EnsureOutcome::AlreadyInPlace);
    assert_eq!(connection.went_off_in_order(uuid).expect("an answer"), Some(true));
    let log = machine.spec.console_log.as_ref().expect("it has one");
    assert!(fs::read_to_string(log).expect("the console").contains("guest: whole up after"));

    connection.start(uuid).expect("started");
    eventually(BOOT, || connection.agent_ping(uuid).is_ok());
    connection.request_shutdown(uuid, ShutdownMode::Acpi).expect("asked");
    eventually(BOOT, || connection.power(uuid).expect("an answer") == Some(DomainState::Off));

    connection.start(uuid).expect("started");
    assert_eq!(connection.went_off_in_order(uuid).expect("an answer"), None, "it is on");
    assert_eq!(connection.destroy(uuid).expect("destroyed"), EnsureOutcome::Changed);
    assert_eq!(connection.destroy(uuid).expect("destroyed before"), EnsureOutcome::AlreadyInPlace);
    assert_eq!(connection.went_off_in_order(uuid).expect("an answer"), Some(false));
    assert_eq!(connection.undefine(uuid).expect("undefined"), EnsureOutcome::Changed);
    assert_eq!(connection.undefine(uuid).expect("undefined before"), EnsureOutcome::AlreadyInPlace);
    assert_eq!(connection.power(uuid).expect("an answer"), None);
    assert!(matches!(connection.start(uuid), Err(Error::NotFound { .. })));
}

#[test]
fn a_pause_by_request_and_one_for_lack_of_space_are_different_and_both_are_resumed() {
    let Some(realm) = Realm::shared() else { return };
    let mut connection = realm.connection();
    connection.ensure_network(&realm.network()).expect("a network");
    let space = realm.small_folder("full", 32);
    let machine = realm.machine("full", 512 << 20);
    let uuid = machine.spec.uuid;
    connection.define(&machine.spec).expect("defined");
    let off = connection.suspend(uuid);
    assert!(matches!(off, Err(Error::WrongState { .. })), "{off:?}");
    assert_eq!(connection.disk_errors(uuid).expect("an answer"), []);
    connection.start(uuid).expect("started");
    eventually(BOOT, || connection.agent_ping(uuid).is_ok());

    assert_eq!(connection.suspend(uuid).expect("suspended"), EnsureOutcome::Changed);
    assert_eq!(connection.suspend(uuid).expect("suspended before"), EnsureOutcome::AlreadyInPlace);
    assert_eq!(connection.power(uuid).expect("an answer"), Some(DomainState::Paused(PauseReason::User)));
    assert_eq!(connection.resume(uuid).expect("resumed"), EnsureOutcome::Changed);
    assert_eq!(connection.resume(uuid).expect("resumed before"), EnsureOutcome::AlreadyInPlace);
    assert_eq!(connection.power(uuid).expect("an answer"), Some(DomainState::Running));

    // More than there is space for, but not more than the guest has.
    let writes = "dd if=/dev/urandom of=/root/new bs=1M count=48; sync";
    let writer = realm.guest_starts(&mut connection, uuid, writes);
    let no_space = DomainState::Paused(PauseReason::NoSpace);
    eventually(BOOT, || connection.power(uuid).expect("an answer") == Some(no_space));
    let full = DiskError { target: "vda".into(), no_space: true };
    assert_eq!(connection.disk_errors(uuid).expect("an answer"), [full]);
    let found = connection.marked_domains().expect("a list");
    assert_eq!(found.iter().find(|found| found.uuid == uuid).expect("ours is in it").power, no_space);
    assert_eq!(connection.resume(uuid).expect("resumed"), EnsureOutcome::Changed);
    eventually(BOOT, || connection.power(uuid).expect("an answer") == Some(no_space));

    space.resize(256);
    assert_eq!(connection.resume(uuid).expect("resumed"), EnsureOutcome::Changed);
    realm.guest_ends(&mut connection, uuid, &writer);
    assert_eq!(connection.power(uuid).expect("an answer"), Some(DomainState::Running));
    assert_eq!(connection.disk_errors(uuid).expect("an answer"), []);
    connection.destroy(uuid).expect("destroyed");
    connection.undefine(uuid).expect("undefined");
}

#[test]
fn a_backup_shows_one_instant_and_the_next_one_only_what_changed() {
    let Some(realm) = Realm::shared() else { return };
    let mut connection = realm.connection();
    connection.ensure_network(&realm.network()).expect("a network");
    let machine = realm.machine("backed-up", 512 << 20);
    let uuid = machine.spec.uuid;
    connection.define(&machine.spec).expect("defined");
    connection.start(uuid).expect("started");
    eventually(BOOT, || connection.agent_ping(uuid).is_ok());

    let folder = realm.folder("backup");
    QemuUser::find().expect("a user").prepare_folder(&folder).expect("a folder for QEMU");
    let spec = |since: Option<&str>, checkpoint: &str| BackupSpec {
        socket: folder.join("nbd.sock"),
        disks: vec![BackupDisk { target: "vda".into(), scratch: folder.join("vda.scratch") }],
        since: since.map(str::to_owned),
        checkpoint: Some(checkpoint.to_owned()),
    };

    realm.guest_runs(&mut connection, uuid, "echo before > /root/page; sync");
    assert_eq!(connection.running_backup(uuid).expect("an answer"), None);
    assert_eq!(connection.end_backup(uuid).expect("none to end"), EnsureOutcome::AlreadyInPlace);
    connection.freeze(uuid).expect("frozen");
    connection.begin_backup(uuid, &spec(None, "one")).expect("begun");
    connection.thaw(uuid).expect("thawed");
    let twice = connection.begin_backup(uuid, &spec(None, "again"));
    assert!(matches!(twice, Err(Error::BackupRunning { .. })), "one backup at a time: {twice:?}");
    realm.guest_runs(&mut connection, uuid, "echo after > /root/page; sync");
    let running = connection.running_backup(uuid).expect("an answer").expect("one is running");
    assert_eq!(running.exports[0].dirty_bitmap_context_name, None);
    let copy = folder.join("full.raw");
    realm::read_export(&running, &copy);
    assert_eq!(connection.end_backup(uuid).expect("ended"), EnsureOutcome::Changed);
    assert_eq!(connection.end_backup(uuid).expect("ended before"), EnsureOutcome::AlreadyInPlace);
    assert!(!folder.join("vda.scratch").exists(), "libvirt removes its scratch file");
    assert!(UnixStream::connect(folder.join("nbd.sock")).is_err(), "the NBD server has ended");
    assert_eq!(realm::file_in_disk(&copy, "/root/page"), "before\n", "the backup shows its instant");

    realm.guest_runs(&mut connection, uuid, "dd if=/dev/urandom of=/root/new bs=1M count=2; sync");
    connection.begin_backup(uuid, &spec(Some("one"), "two")).expect("begun");
    let running = connection.running_backup(uuid).expect("an answer").expect("one is running");
    assert_eq!(running.since.as_deref(), Some("one"));
    assert_eq!(running.exports[0].dirty_bitmap_context_name.as_deref(), Some("qemu:dirty-bitmap:loam-vda"));
    let changed = realm::dirty_bytes(&running);
    assert!((2 << 20..32 << 20).contains(&changed), "{changed} bytes changed");
    connection.end_backup(uuid).expect("ended");

    let names = |checkpoints: &[provisioner_libvirt::backup::Checkpoint]| -> Vec<(String, Option<String>)> {
        checkpoints.iter().map(|point| (point.name.clone(), point.parent.clone())).collect()
    };
    let points = connection.checkpoints(uuid).expect("a list");
    assert_eq!(names(&points), [("one".into(), None), ("two".into(), Some("one".into()))]);
    let whole = CheckpointDeletion::Full;
    assert_eq!(connection.delete_checkpoint(uuid, "one", whole).expect("deleted"), EnsureOutcome::Changed);
    assert_eq!(
        connection.delete_checkpoint(uuid, "one", whole).expect("deleted before"),
        EnsureOutcome::AlreadyInPlace
    );
    let unknown = connection.begin_backup(uuid, &spec(Some("one"), "three"));
    assert!(unknown.is_err(), "a checkpoint that is gone cannot be built on: {unknown:?}");

    // A checkpoint that is left must not keep a machine from being removed.
    connection.destroy(uuid).expect("destroyed");
    connection.undefine(uuid).expect("undefined");
}

#[test]
fn a_daemon_that_hangs_costs_a_deadline_and_the_connection_recovers_by_itself() {
    let Some(realm) = Realm::alone() else { return };
    let mut connection = realm.connection_within(Deadlines::scaled(0.2));
    connection.version().expect("a healthy daemon");
    let limit = connection.deadline(CallClass::Query) + connection.deadline(CallClass::Connect);
    let frozen = realm.freeze_daemon();
    for _ in 0..3 {
        let begun = Instant::now();
        let answer = connection.version();
        assert!(matches!(answer, Err(Error::TimedOut { .. })), "{answer:?}");
        assert!(begun.elapsed() < limit + MOMENT / 4, "took {:?}", begun.elapsed());
    }
    drop(frozen);
    eventually(MOMENT, || connection.version().is_ok());
}

#[test]
fn a_daemon_that_dies_is_an_error_and_its_successor_is_found() {
    let Some(realm) = Realm::alone() else { return };
    let mut connection = realm.connection();
    connection.version().expect("a healthy daemon");
    realm.kill_daemon();
    let gone = connection.version();
    assert!(gone.as_ref().is_err_and(Error::is_transient), "{gone:?}");
    let gone = connection.version();
    assert!(matches!(gone, Err(Error::SocketRefused { .. } | Error::SocketMissing { .. })), "{gone:?}");
    realm.start_daemon();
    eventually(MOMENT, || connection.version().is_ok());

    // Between two calls a restart goes unnoticed.
    realm.kill_daemon();
    realm.start_daemon();
    eventually(MOMENT, || realm.connection().version().is_ok());
    connection.version().expect("the connection was reopened by itself");
}

#[test]
fn an_accelerator_is_chosen_by_booting_a_kernel() {
    let Some(realm) = Realm::shared() else { return };
    boots(VirtType::Qemu, &realm.kernel(), BOOT).expect("emulation works everywhere");
    let no_kernel = realm.folder("probe").join("no-kernel");
    fs::write(&no_kernel, b"not a kernel").expect("a file");
    assert!(boots(VirtType::Qemu, &no_kernel, BOOT).is_err());
    let chosen = choose(VirtTypePreference::Auto, Some(&realm.kernel()));
    assert_eq!(chosen.virt_type, VirtType::Qemu, "a realm has no KVM: {}", chosen.reason);
    let forced = choose(VirtTypePreference::Always(VirtType::Kvm), None);
    assert_eq!(forced.virt_type, VirtType::Kvm, "a set type is not probed");
}

#[test]
fn what_libvirt_does_not_know_is_an_answer_and_not_a_failure() {
    let Some(realm) = Realm::shared() else { return };
    let mut connection = realm.connection();
    let (cpus, kib) = connection.host_capacity().expect("an answer");
    assert!(cpus >= 1 && kib >= 1 << 19, "{cpus} processors, {kib} KiB");
    let unknown = Uuid::from_u128(1);
    assert_eq!(connection.power(unknown).expect("an answer"), None);
    assert_eq!(connection.find("unknown").expect("an answer"), None);
    assert_eq!(connection.mark(unknown).expect("an answer"), None);
    assert_eq!(connection.destroy(unknown).expect("an answer"), EnsureOutcome::AlreadyInPlace);
    assert_eq!(connection.undefine(unknown).expect("an answer"), EnsureOutcome::AlreadyInPlace);
    assert!(matches!(connection.agent_ping(unknown), Err(Error::NotFound { .. })));
    assert!(matches!(connection.running_backup(unknown), Err(Error::NotFound { .. })));
}

#[test]
fn a_folder_that_qemu_cannot_reach_is_named() {
    let Some(realm) = Realm::shared() else { return };
    let closed = realm.folder("closed");
    assert!(Command::new("chmod").arg("700").arg(&closed).status().expect("chmod").success());
    let refused = QemuUser::find().expect("a user").prepare_folder(&closed.join("inside"));
    let sentence = refused.expect_err("QEMU cannot get there").to_string();
    assert!(sentence.contains(&format!("may not enter {}", closed.display())), "{sentence}");
}

fn eventually_some<T>(within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let mut answer = None;
    eventually(within, || {
        answer = ask();
        answer.is_some()
    });
    answer.expect("it came in time")
}
