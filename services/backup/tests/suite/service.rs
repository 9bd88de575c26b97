//! The whole service with its real actors on the memory bus: a repository in a folder, disks behind real NBD
//! servers, a fake provisioner.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::support::gate::GatedExports;
use crate::support::*;
use backup::adapters::nbd::NbdExports;
use backup::ports::DiskExportConnector;
use bus::CallError;
use contract::backup::*;
use contract::operation::{BegunOperation, CancelOperation, OperationState};
use contract::{OperationId, Service, VmName};
use futures::StreamExt;

const DISK_BYTES: u64 = 64 << 20;

fn start(name: &VmName) -> StartBackup {
    StartBackup { vm: name.clone(), schedule: None, operation_id: None }
}

fn restore(backup: &str, as_vm: &str) -> RestoreBackupAsVm {
    RestoreBackupAsVm {
        backup: backup.parse().expect("a valid reference"),
        as_vm: vm(as_vm),
        host: None,
        overcommit: false,
        operation_id: None,
    }
}

fn verify(backup: &str) -> VerifyBackup {
    VerifyBackup { backup: backup.parse().expect("a valid reference"), operation_id: None }
}

async fn backups(service: &TestService) -> Vec<Backup> {
    let listed = service.bus.call(&ListBackups::default(), DEADLINE).await;
    listed.expect("the backups are listed")
}

/// The service with one vm, `web`, whose disk is a raw image.
async fn service_with_web(folder: &Path) -> (TestService, GatedExports) {
    let exports = GatedExports::of(Arc::new(RawExports));
    let service = TestService::open(folder, repository_config(folder), Arc::new(exports.clone())).await;
    let image = folder.join("web.raw");
    raw_image(&image, 1, 4 << 20);
    service.provisioner.add_raw_vm(&vm("web"), &image);
    service.ready().await;
    (service, exports)
}

fn flattened(qcow2: &Path) -> Vec<u8> {
    let raw = qcow2.with_extension("flat");
    let paths = [qcow2, &raw].map(|path| path.to_str().expect("a path in UTF-8"));
    qemu::run("qemu-img", &["convert", "-O", "raw", paths[0], paths[1]]);
    std::fs::read(raw).expect("the converted image can be read")
}

#[actix::test]
async fn a_disk_behind_qemu_is_backed_up_changed_backed_up_again_restored_and_verified() {
    if !qemu::is_installed() {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let descriptors = folder.path().join("descriptors.sock");
    let exports = Arc::new(NbdExports::at(descriptors.clone()));
    let service = TestService::open(folder.path(), repository_config(folder.path()), exports.clone()).await;
    let _passing = qemu::pass_connections(&service.provisioner, &descriptors);
    service.ready().await;
    let mut events = service.bus.subscribe::<BackupSealed>().await.expect("the subscription is made");
    let (web, image) = (vm("web"), folder.path().join("web.qcow2"));
    let path = image.to_str().expect("a path in UTF-8");
    qemu::run("qemu-img", &["create", "-q", "-f", "qcow2", path, "64M"]);
    qemu::run("qemu-io", &["-c", "write -P 7 3M 5M", "-c", "write -P 9 40M 1M", path]);
    let before = flattened(&image);

    let served = qemu::Served::start(&image, DISK_BYTES).await;
    service.provisioner.add_vm(&web, served.export());
    let scheduled = StartBackup { schedule: Some("nightly".parse().expect("a valid name")), ..start(&web) };
    let begun = service.bus.call(&scheduled, DEADLINE).await.expect("the command is accepted");
    let report = service.ended(&begun).await;
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    let first: Backup = serde_json::from_value(report.output.expect("a backup")).expect("it can be read");
    assert_eq!(first.id.as_str(), begun.operation().as_str(), "a backup has the id of its operation");
    assert_eq!(first.schedule, scheduled.schedule);
    assert!(first.bytes_read.0 < DISK_BYTES / 2, "only what is allocated is read: {:?}", first.bytes_read);
    let (sealed, _) = events.next().await.expect("an event is published");
    assert_eq!(sealed.0, first);
    assert_eq!(backups(&service).await, vec![first.clone()], "a sealed backup is in the list at once");
    assert!(service.provisioner.state().open.is_empty(), "the exports are closed");
    let closed = exports.connect(begun.operation(), &served.export()).await.err().expect("nothing is passed");
    assert!(contract::message::with_causes(&closed).contains("no such export is open"), "{closed:?}");

    drop(served);
    qemu::run("qemu-io", &["-c", "write -P 11 20M 256k", path]);
    let served = qemu::Served::start(&image, DISK_BYTES).await;
    service.provisioner.add_vm(&web, served.export());
    let begun = service.bus.call(&start(&web), DEADLINE).await.expect("the command is accepted");
    assert_eq!(service.ended(&begun).await.state, OperationState::Done);
    let all = backups(&service).await;
    assert_eq!(all.len(), 2);
    assert_eq!(all[1], first, "newest first");
    assert!(all[0].bytes_new.0 <= 4 << 20, "only what changed is new: {:?}", all[0].bytes_new);

    let whole = format!("web@{}", first.id);
    let begun = service.bus.call(&restore(&whole, "web2"), DEADLINE).await.expect("the command is accepted");
    let report = service.ended(&begun).await;
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    let restored: RestoredVm = serde_json::from_value(report.output.expect("a vm")).expect("it can be read");
    assert_eq!((restored.vm, restored.backup), (vm("web2"), first.id));
    assert!(std::fs::read(folder.path().join("web2-vda.raw")).expect("the file exists") == before);

    let begun = service.bus.call(&verify("web@latest"), DEADLINE).await.expect("the command is accepted");
    let report = service.ended(&begun).await;
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    let verified: VerifiedBackup =
        serde_json::from_value(report.output.expect("a report")).expect("it can be read");
    assert!(verified.chunks > 0 && verified.bytes_read.0 > 0);
}

#[actix::test]
async fn what_cannot_be_done_is_refused_as_the_contract_says() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (service, _) = service_with_web(folder.path()).await;
    let refused = service.bus.call(&start(&vm("mail")), DEADLINE).await.expect_err("unknown");
    assert!(matches!(refused, CallError::Refused(StartBackupRefused::UnknownVm(name)) if name == vm("mail")));
    let refused = service.bus.call(&restore("web@latest", "web2"), DEADLINE).await.expect_err("no backup");
    assert!(matches!(refused, CallError::Refused(RestoreBackupAsVmRefused::UnknownBackup(_))));

    let begun = service.bus.call(&start(&vm("web")), DEADLINE).await.expect("the command is accepted");
    assert_eq!(service.ended(&begun).await.state, OperationState::Done);
    let refused = service.bus.call(&restore("web@latest", "web"), DEADLINE).await.expect_err("taken");
    assert!(matches!(refused, CallError::Refused(RestoreBackupAsVmRefused::NameTaken(_))));
    let refused = service.bus.call(&verify("web@7ZZZ"), DEADLINE).await.expect_err("no such");
    assert!(matches!(refused, CallError::Refused(VerifyBackupRefused::UnknownBackup(_))));
}

#[actix::test]
async fn a_vm_has_one_backup_at_a_time_and_the_same_command_twice_is_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (service, exports) = service_with_web(folder.path()).await;
    exports.stop();
    let command = StartBackup { operation_id: Some(OperationId::from_bits(5)), ..start(&vm("web")) };
    let first = service.bus.call(&command, DEADLINE).await.expect("the command is accepted");
    let again = service.bus.call(&command, DEADLINE).await.expect("the command is known");
    assert_eq!(again, BegunOperation::AlreadyBegun(OperationId::from_bits(5)));
    let refused = service.bus.call(&start(&vm("web")), DEADLINE).await.expect_err("under way");
    assert!(matches!(
        refused,
        CallError::Refused(StartBackupRefused::UnderWay { by, .. }) if by == OperationId::from_bits(5)
    ));
    let other = StartBackup { vm: vm("db"), ..command.clone() };
    let refused = service.bus.call(&other, DEADLINE).await.expect_err("reused");
    assert!(matches!(refused, CallError::Refused(StartBackupRefused::IdReused(_))));
    exports.go_on();
    assert_eq!(service.ended(&first).await.state, OperationState::Done);
    let again = service.bus.call(&command, DEADLINE).await.expect("the command is known");
    assert_eq!(again, BegunOperation::AlreadyBegun(OperationId::from_bits(5)));
}

#[actix::test]
async fn a_cancelled_backup_leaves_no_export_open_and_no_backup() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (service, exports) = service_with_web(folder.path()).await;
    exports.stop();
    let begun = service.bus.call(&start(&vm("web")), DEADLINE).await.expect("the command is accepted");
    service.at_step(&begun, "copy").await;
    let cancel = CancelOperation { id: begun.operation().clone() };
    service.bus.call_at(Service::Backup, &cancel, DEADLINE).await.expect("the cancellation is accepted");
    let report = service.ended(&begun).await;
    assert_eq!((report.state, report.reason.as_deref()), (OperationState::Undone, Some("cancelled")));
    assert!(service.provisioner.state().open.is_empty());
    assert!(backups(&service).await.is_empty());
}

#[actix::test]
async fn a_restore_cancelled_while_the_vm_is_created_cancels_the_child() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (service, _) = service_with_web(folder.path()).await;
    let begun = service.bus.call(&start(&vm("web")), DEADLINE).await.expect("the command is accepted");
    assert_eq!(service.ended(&begun).await.state, OperationState::Done);
    service.provisioner.state().creating_stalls = true;
    let begun =
        service.bus.call(&restore("web@latest", "web2"), DEADLINE).await.expect("the command is accepted");
    testkit::eventually("the child runs", async || !service.provisioner.state().operations.is_empty()).await;
    let cancel = CancelOperation { id: begun.operation().clone() };
    service.bus.call_at(Service::Backup, &cancel, DEADLINE).await.expect("the cancellation is accepted");
    assert_eq!(service.ended(&begun).await.state, OperationState::Undone);
    let state = service.provisioner.state();
    assert!(state.operations.values().all(|child| child.state == OperationState::Undone));
    assert!(state.reserved.is_empty() && !state.vms.contains_key(&vm("web2")));
    assert!(!folder.path().join("web2-vda.raw").exists());
}

#[actix::test]
async fn exports_lost_in_the_middle_are_opened_anew_and_all_that_is_sealed_is_of_one_moment() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (service, exports) = service_with_web(folder.path()).await;
    service.provisioner.state().lease_seconds = 1;
    exports.stop();
    let begun = service.bus.call(&start(&vm("web")), DEADLINE).await.expect("the command is accepted");
    service.at_step(&begun, "copy").await;
    service.provisioner.lose_exports();
    testkit::eventually("exports are opened anew", async || service.provisioner.state().moments.len() == 2)
        .await;
    exports.go_on();
    let report = service.ended(&begun).await;
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    assert_eq!(backups(&service).await.len(), 1);
}

#[actix::test]
async fn more_backups_than_transfer_slots_wait_their_turn() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (service, exports) = service_with_web(folder.path()).await;
    exports.stop();
    let image = folder.path().join("web.raw");
    let mut begun = Vec::new();
    for name in ["web", "db", "mail"] {
        service.provisioner.add_raw_vm(&vm(name), &image);
        begun.push(service.bus.call(&start(&vm(name)), DEADLINE).await.expect("the command is accepted"));
    }
    service.at_step(&begun[0], "copy").await;
    service.at_step(&begun[1], "copy").await;
    service.at_step(&begun[2], "queue").await;
    assert_eq!(service.provisioner.state().open.len(), 2, "a waiting backup holds no export open");
    exports.go_on();
    for begun in &begun {
        assert_eq!(service.ended(begun).await.state, OperationState::Done);
    }
}

#[actix::test]
async fn a_verification_of_a_damaged_backup_names_what_is_damaged() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (service, _) = service_with_web(folder.path()).await;
    let begun = service.bus.call(&start(&vm("web")), DEADLINE).await.expect("the command is accepted");
    assert_eq!(service.ended(&begun).await.state, OperationState::Done);
    let largest =
        files_under(&folder.path().join("store")).into_iter().max().expect("the store holds a file").1;
    let mut bytes = std::fs::read(&largest).expect("the file exists");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&largest, bytes).expect("the file is written");
    let begun = service.bus.call(&verify("web@latest"), DEADLINE).await.expect("the command is accepted");
    let report = service.ended(&begun).await;
    assert_eq!(report.state, OperationState::Undone);
    let reason = report.reason.expect("an undone operation has a reason");
    assert!(reason.contains("the backup is damaged") && reason.contains("pack"), "{reason}");
}

#[actix::test]
async fn an_operation_left_by_a_dead_process_is_finished_by_the_next() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (first, exports) = service_with_web(folder.path()).await;
    exports.stop();
    let begun = first.bus.call(&start(&vm("web")), DEADLINE).await.expect("the command is accepted");
    first.at_step(&begun, "copy").await;
    first.engine.shut_down().await;
    let (bus, provisioner) = (first.bus.clone(), first.provisioner.clone());
    let servers = first.close().await;
    let exports = Arc::new(RawExports);
    let next = TestService::beside(
        bus,
        provisioner,
        servers,
        folder.path(),
        repository_config(folder.path()),
        exports,
    )
    .await;
    next.ready().await;
    assert_eq!(next.engine.resume().await.expect("the operations are resumed"), 1);
    let report = tokio::time::timeout(Duration::from_secs(60), next.ended(&begun))
        .await
        .expect("the operation ends in time");
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    assert_eq!(next.provisioner.state().moments.len(), 1, "the lease lived, the moment is the same");
    assert_eq!(backups(&next).await.len(), 1);
}
