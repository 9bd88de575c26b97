//! The whole service with its real actors on the memory bus: a repository in a folder, disks behind real NBD
//! servers, a fake provisioner.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backup::adapters::nbd::NbdDoors;
use backup::sagas::{RestoredVm, Verified};
use bus::CallError;
use contract::backup::*;
use contract::operation::{Begun, CancelOperation, OperationState};
use contract::{OperationId, Service, VmName};
use futures::StreamExt;
use support::gate::GatedDoors;
use support::*;

const DISK_BYTES: u64 = 64 << 20;

fn start(name: &VmName) -> StartBackup {
    StartBackup { vm: name.clone(), schedule: None, operation_id: None }
}

fn restore(backup: &str, as_vm: &str) -> RestoreBackup {
    RestoreBackup { backup: backup.parse().expect("a reference"), as_vm: vm(as_vm), operation_id: None }
}

fn verify(backup: &str) -> VerifyBackup {
    VerifyBackup { backup: backup.parse().expect("a reference"), operation_id: None }
}

/// Once the store is open; commands before that are told to come again.
async fn ready(office: &Office) {
    testkit::eventually("the store is open", async || {
        office.bus.call(&ListBackups::default(), DEADLINE).await.is_ok()
    })
    .await;
}

async fn backups(office: &Office) -> Vec<Backup> {
    let listed = office.bus.call(&ListBackups::default(), DEADLINE).await;
    listed.expect("listed")
}

/// The service with one machine, `web`, whose disk is a raw image.
async fn office_with_web(folder: &Path) -> (Office, GatedDoors) {
    let doors = GatedDoors::of(Arc::new(RawDoors));
    let office = Office::open(folder, shelf(folder), Arc::new(doors.clone())).await;
    let image = folder.join("web.raw");
    raw_image(&image, 1, 4 << 20);
    office.provisioner.add_raw_vm(&vm("web"), &image);
    ready(&office).await;
    (office, doors)
}

fn flattened(qcow2: &Path) -> Vec<u8> {
    let raw = qcow2.with_extension("flat");
    let paths = [qcow2, &raw].map(|path| path.to_str().expect("text"));
    qemu::run("qemu-img", &["convert", "-O", "raw", paths[0], paths[1]]);
    std::fs::read(raw).expect("converted")
}

#[actix::test]
async fn a_disk_behind_qemu_is_backed_up_changed_backed_up_again_restored_and_verified() {
    if !qemu::is_there() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let office = Office::open(folder.path(), shelf(folder.path()), Arc::new(NbdDoors)).await;
    ready(&office).await;
    let mut told = office.bus.subscribe::<BackupSealed>().await.expect("heard");
    let (web, image) = (vm("web"), folder.path().join("web.qcow2"));
    let path = image.to_str().expect("text");
    qemu::run("qemu-img", &["create", "-q", "-f", "qcow2", path, "64M"]);
    qemu::run("qemu-io", &["-c", "write -P 7 3M 5M", "-c", "write -P 9 40M 1M", path]);
    let before = flattened(&image);

    let served = qemu::Served::start(&image, DISK_BYTES).await;
    office.provisioner.add_vm(&web, served.door());
    let scheduled = StartBackup { schedule: Some("nightly".parse().expect("a name")), ..start(&web) };
    let begun = office.bus.call(&scheduled, DEADLINE).await.expect("begun");
    let report = office.ended(&begun).await;
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    let first: Backup = serde_json::from_value(report.output.expect("a backup")).expect("readable");
    assert_eq!(first.id.as_str(), begun.operation().as_str(), "a backup carries its operation's id");
    assert_eq!(first.schedule, scheduled.schedule);
    assert!(first.bytes_read.0 < DISK_BYTES / 2, "only what is allocated is read: {:?}", first.bytes_read);
    let (sealed, _) = told.next().await.expect("told");
    assert_eq!(sealed.0, first);
    assert_eq!(backups(&office).await, vec![first.clone()], "a sealed backup is in the list at once");
    assert!(office.provisioner.state().open.is_empty(), "the doors are closed");

    drop(served);
    qemu::run("qemu-io", &["-c", "write -P 11 20M 256k", path]);
    let served = qemu::Served::start(&image, DISK_BYTES).await;
    office.provisioner.add_vm(&web, served.door());
    let begun = office.bus.call(&start(&web), DEADLINE).await.expect("begun");
    assert_eq!(office.ended(&begun).await.state, OperationState::Done);
    let all = backups(&office).await;
    assert_eq!(all.len(), 2);
    assert_eq!(all[1], first, "newest first");
    assert!(all[0].bytes_new.0 <= 4 << 20, "only what changed is new: {:?}", all[0].bytes_new);

    let whole = format!("web@{}", first.id);
    let begun = office.bus.call(&restore(&whole, "web2"), DEADLINE).await.expect("begun");
    let report = office.ended(&begun).await;
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    let restored: RestoredVm = serde_json::from_value(report.output.expect("a vm")).expect("readable");
    assert_eq!((restored.vm, restored.backup), (vm("web2"), first.id));
    assert!(std::fs::read(folder.path().join("web2-vda.raw")).expect("there") == before);

    let begun = office.bus.call(&verify("web@latest"), DEADLINE).await.expect("begun");
    let report = office.ended(&begun).await;
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    let verified: Verified = serde_json::from_value(report.output.expect("a report")).expect("readable");
    assert!(verified.pieces > 0 && verified.bytes_read.0 > 0);
}

#[actix::test]
async fn what_cannot_be_is_refused_in_the_words_of_the_contract() {
    let folder = tempfile::tempdir().expect("a folder");
    let (office, _) = office_with_web(folder.path()).await;
    let refused = office.bus.call(&start(&vm("mail")), DEADLINE).await.expect_err("unknown");
    assert!(matches!(refused, CallError::Refused(StartBackupRefused::Unknown(name)) if name == vm("mail")));
    let refused = office.bus.call(&restore("web@latest", "web2"), DEADLINE).await.expect_err("no backup");
    assert!(matches!(refused, CallError::Refused(RestoreBackupRefused::Unknown(_))));

    let begun = office.bus.call(&start(&vm("web")), DEADLINE).await.expect("begun");
    assert_eq!(office.ended(&begun).await.state, OperationState::Done);
    let refused = office.bus.call(&restore("web@latest", "web"), DEADLINE).await.expect_err("taken");
    assert!(matches!(refused, CallError::Refused(RestoreBackupRefused::NameTaken(_))));
    let refused = office.bus.call(&verify("web@7ZZZ"), DEADLINE).await.expect_err("no such");
    assert!(matches!(refused, CallError::Refused(RestoreBackupRefused::Unknown(_))));
}

#[actix::test]
async fn a_machine_has_one_backup_at_a_time_and_the_same_command_twice_is_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (office, doors) = office_with_web(folder.path()).await;
    doors.shut();
    let command = StartBackup { operation_id: Some(OperationId::from_bits(5)), ..start(&vm("web")) };
    let first = office.bus.call(&command, DEADLINE).await.expect("begun");
    let again = office.bus.call(&command, DEADLINE).await.expect("known");
    assert_eq!(again, Begun::AlreadyBegun(OperationId::from_bits(5)));
    let refused = office.bus.call(&start(&vm("web")), DEADLINE).await.expect_err("under way");
    assert!(matches!(
        refused,
        CallError::Refused(StartBackupRefused::UnderWay { by, .. }) if by == OperationId::from_bits(5)
    ));
    let other = StartBackup { vm: vm("db"), ..command.clone() };
    let refused = office.bus.call(&other, DEADLINE).await.expect_err("reused");
    assert!(matches!(refused, CallError::Refused(StartBackupRefused::IdReused(_))));
    doors.open();
    assert_eq!(office.ended(&first).await.state, OperationState::Done);
    let again = office.bus.call(&command, DEADLINE).await.expect("known");
    assert_eq!(again, Begun::AlreadyBegun(OperationId::from_bits(5)));
}

#[actix::test]
async fn a_backup_given_up_in_the_middle_leaves_no_door_open_and_no_backup() {
    let folder = tempfile::tempdir().expect("a folder");
    let (office, doors) = office_with_web(folder.path()).await;
    doors.shut();
    let begun = office.bus.call(&start(&vm("web")), DEADLINE).await.expect("begun");
    office.at_step(&begun, "copy").await;
    let cancel = CancelOperation { id: begun.operation().clone() };
    office.bus.call_at(Service::Backup, &cancel, DEADLINE).await.expect("understood");
    let report = office.ended(&begun).await;
    assert_eq!((report.state, report.reason.as_deref()), (OperationState::Undone, Some("cancelled")));
    assert!(office.provisioner.state().open.is_empty());
    assert!(backups(&office).await.is_empty());
}

#[actix::test]
async fn a_restore_given_up_while_the_machine_is_made_takes_the_child_with_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (office, _) = office_with_web(folder.path()).await;
    let begun = office.bus.call(&start(&vm("web")), DEADLINE).await.expect("begun");
    assert_eq!(office.ended(&begun).await.state, OperationState::Done);
    office.provisioner.state().adopting_stalls = true;
    let begun = office.bus.call(&restore("web@latest", "web2"), DEADLINE).await.expect("begun");
    testkit::eventually("the child is at work", async || !office.provisioner.state().operations.is_empty())
        .await;
    let cancel = CancelOperation { id: begun.operation().clone() };
    office.bus.call_at(Service::Backup, &cancel, DEADLINE).await.expect("understood");
    assert_eq!(office.ended(&begun).await.state, OperationState::Undone);
    let state = office.provisioner.state();
    assert!(state.operations.values().all(|child| child.state == OperationState::Undone));
    assert!(state.reserved.is_empty() && !state.vms.contains_key(&vm("web2")));
    assert!(!folder.path().join("web2-vda.raw").exists());
}

#[actix::test]
async fn doors_lost_in_the_middle_are_opened_anew_and_all_that_is_sealed_is_of_one_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    let (office, doors) = office_with_web(folder.path()).await;
    office.provisioner.state().lease_seconds = 1;
    doors.shut();
    let begun = office.bus.call(&start(&vm("web")), DEADLINE).await.expect("begun");
    office.at_step(&begun, "copy").await;
    office.provisioner.forget_doors();
    testkit::eventually("new doors", async || office.provisioner.state().moments == 2).await;
    doors.open();
    let report = office.ended(&begun).await;
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    assert_eq!(backups(&office).await.len(), 1);
}

#[actix::test]
async fn more_backups_than_places_wait_their_turn() {
    let folder = tempfile::tempdir().expect("a folder");
    let (office, doors) = office_with_web(folder.path()).await;
    doors.shut();
    let image = folder.path().join("web.raw");
    let mut begun = Vec::new();
    for name in ["web", "db", "mail"] {
        office.provisioner.add_raw_vm(&vm(name), &image);
        begun.push(office.bus.call(&start(&vm(name)), DEADLINE).await.expect("begun"));
    }
    office.at_step(&begun[0], "copy").await;
    office.at_step(&begun[1], "copy").await;
    office.at_step(&begun[2], "queue").await;
    assert_eq!(office.provisioner.state().open.len(), 2, "who waits holds no door open");
    doors.open();
    for begun in &begun {
        assert_eq!(office.ended(begun).await.state, OperationState::Done);
    }
}

#[actix::test]
async fn a_damaged_backup_is_told_with_what_is_damaged() {
    let folder = tempfile::tempdir().expect("a folder");
    let (office, _) = office_with_web(folder.path()).await;
    let begun = office.bus.call(&start(&vm("web")), DEADLINE).await.expect("begun");
    assert_eq!(office.ended(&begun).await.state, OperationState::Done);
    let largest = largest_file(&folder.path().join("store"));
    let mut bytes = std::fs::read(&largest).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&largest, bytes).expect("written");
    let begun = office.bus.call(&verify("web@latest"), DEADLINE).await.expect("begun");
    let report = office.ended(&begun).await;
    assert_eq!(report.state, OperationState::Undone);
    let reason = report.reason.expect("a reason");
    assert!(reason.contains("the backup is damaged") && reason.contains("pack"), "{reason}");
}

fn largest_file(folder: &Path) -> std::path::PathBuf {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("readable") {
            let entry = entry.expect("readable");
            let looked = entry.metadata().expect("there");
            if looked.is_dir() {
                folders.push(entry.path());
            } else {
                found.push((looked.len(), entry.path()));
            }
        }
    }
    found.into_iter().max().expect("a file").1
}

#[actix::test]
async fn an_operation_left_by_a_dead_process_is_finished_by_the_next() {
    let folder = tempfile::tempdir().expect("a folder");
    let (first, doors) = office_with_web(folder.path()).await;
    doors.shut();
    let begun = first.bus.call(&start(&vm("web")), DEADLINE).await.expect("begun");
    first.at_step(&begun, "copy").await;
    first.operations.leave().await;
    let (bus, provisioner) = (first.bus.clone(), first.provisioner.clone());
    let desks = first.close_backup();
    let open_doors = Arc::new(RawDoors);
    let next = Office::beside(bus, provisioner, desks, folder.path(), shelf(folder.path()), open_doors).await;
    ready(&next).await;
    assert_eq!(next.operations.resume().await.expect("resumed"), 1);
    let report = tokio::time::timeout(Duration::from_secs(60), next.ended(&begun)).await.expect("it ends");
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    assert_eq!(next.provisioner.state().moments, 1, "the lease lived, the moment is the same");
    assert_eq!(backups(&next).await.len(), 1);
}
