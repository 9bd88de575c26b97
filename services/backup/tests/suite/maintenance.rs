//! Verification, collection and retention of the whole repository, by a running service.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use backup_repository::{BackupRequest, Cancel, Consistency, Progress, RawFile, Repository, SnapshotId};
use bus::CallError;
use contract::backup::*;
use contract::operation::{BegunOperation, CancelOperation, OperationReport, OperationState};
use contract::{BackupId, ByteCount, DurableCommand, OperationId, Service};
use serde::de::DeserializeOwned;

use crate::support::gate::GatedExports;
use crate::support::s3::TinyS3;
use crate::support::*;

const IMAGE_BYTES: usize = 4 << 20;

/// The service with one VM, `web`.
async fn open(folder: &Path) -> (TestService, GatedExports) {
    let exports = GatedExports::of(Arc::new(RawExports));
    let service = TestService::open(folder, repository_config(folder), Arc::new(exports.clone())).await;
    raw_image(&folder.join("web.raw"), 1, IMAGE_BYTES);
    service.provisioner.add_raw_vm(&vm("web"), &folder.join("web.raw"));
    service.ready().await;
    (service, exports)
}

async fn run<C: DurableCommand>(service: &TestService, command: &C) -> OperationReport
where
    C::Refusal: Sync,
{
    let begun = service.bus.call(command, DEADLINE).await.expect("the command is accepted");
    service.ended(&begun).await
}

fn output<T: DeserializeOwned>(report: OperationReport) -> T {
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    serde_json::from_value(report.output.expect("an operation that is done has an output")).expect("the type")
}

/// Backs `web` up with content of its own.
async fn back_up(service: &TestService, seed: u64) -> Backup {
    raw_image(&service.folder.join("web.raw"), seed, IMAGE_BYTES);
    output(run(service, &StartBackup { vm: vm("web"), schedule: None, operation_id: None }).await)
}

async fn listed(service: &TestService) -> Vec<BackupId> {
    let backups = service.bus.call(&ListBackups::default(), DEADLINE).await.expect("the backups are listed");
    backups.into_iter().map(|backup| backup.id).collect()
}

fn snapshot_id(id: &BackupId) -> SnapshotId {
    id.as_str().parse().expect("both are ULIDs")
}

/// The repository as another program opens it.
async fn other_program(folder: &Path) -> Repository {
    repository_config(folder).open().await.expect("the repository opens")
}

/// Another program adds a snapshot of a machine that is called `web`, too.
async fn add_foreign_snapshot(folder: &Path, taken_at_unix_ms: u64) {
    let repository = other_program(folder).await;
    let image = folder.join("foreign.raw");
    raw_image(&image, 77, IMAGE_BYTES);
    let request = BackupRequest {
        machine: "web".into(),
        taken_at_unix_ms,
        tags: Vec::new(),
        disks: vec![("vda".into(), Box::new(RawFile::open(&image).expect("the image opens")))],
        streams: Vec::new(),
        definition: Vec::new(),
        parent: None,
        consistency: Consistency::Crash,
    };
    let draft =
        repository.copy(request, &Progress::new().into(), &Cancel::new()).await.expect("the disk is copied");
    let id = snapshot_id(&BackupId::from(&OperationId::from_bits(77)));
    repository.seal(&draft, id).await.expect("the snapshot is sealed");
}

fn keep_last(count: u32) -> ApplyRetention {
    let keep = RetentionRules { last: Some(count), ..RetentionRules::default() };
    ApplyRetention { keep, vm: None, operation_id: None }
}

fn stored_bytes(folder: &Path) -> u64 {
    files_under(&folder.join("store")).into_iter().map(|(bytes, _)| bytes).sum()
}

#[actix::test]
async fn retention_forgets_what_no_rule_keeps_and_the_rest_can_be_restored() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (service, _) = open(folder.path()).await;
    add_foreign_snapshot(folder.path(), 1_600_000_000_000).await;
    let mut made = Vec::new();
    for seed in 1..=6 {
        made.push(back_up(&service, seed).await.id);
    }
    let held = snapshot_id(&made[0]);
    other_program(folder.path()).await.hold(held, "an audit").await.expect("the oldest is held");

    let command = ApplyRetention { operation_id: Some(OperationId::from_bits(5)), ..keep_last(1) };
    let applied: AppliedRetention = output(run(&service, &command).await);
    let mut forgotten = applied.forgotten.clone();
    forgotten.sort();
    assert_eq!(forgotten, made[1..3], "the newest three and the held one are kept");
    assert_eq!((applied.kept_total, applied.deferred_total), (4, 0));
    let reasons = |id: &BackupId| {
        let kept = applied.kept.iter().find(|kept| kept.backup == *id).expect("it is kept");
        kept.reasons.join(", ")
    };
    assert_eq!(reasons(&made[0]), "held");
    assert!(reasons(&made[5]).contains("last 1 of 1"), "{}", reasons(&made[5]));
    assert_eq!(reasons(&made[3]), "minimum");
    let left = listed(&service).await;
    assert_eq!(left.len(), 5, "the snapshot of another program is not touched: {left:?}");

    let again = service.bus.call(&command, DEADLINE).await.expect("the command is known");
    assert_eq!(again, BegunOperation::AlreadyBegun(OperationId::from_bits(5)));
    assert_eq!(listed(&service).await, left, "the same id twice is once");

    let collected: CollectedRepository = output(run(&service, &CollectRepository::default()).await);
    assert!(collected.bytes_deleted.0 > 0, "{collected:?}");
    let verified: VerifiedRepository = output(run(&service, &VerifyRepository::default()).await);
    assert_eq!(verified.backups, 5);
    let backup = format!("web@{}", made[3]).parse().expect("a valid reference");
    let restored: RestoredVm = output(
        run(
            &service,
            &RestoreBackupAsVm {
                backup,
                as_vm: vm("web2"),
                host: None,
                overcommit: false,
                operation_id: None,
            },
        )
        .await,
    );
    assert_eq!(restored.backup, made[3]);
    raw_image(&folder.path().join("expected.raw"), 4, IMAGE_BYTES);
    let read = |name: &str| std::fs::read(folder.path().join(name)).expect("the file exists");
    assert!(read("web2-vda.raw") == read("expected.raw"));
}

#[actix::test]
async fn retention_of_one_vm_leaves_the_others_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (service, _) = open(folder.path()).await;
    service.provisioner.add_raw_vm(&vm("db"), &folder.path().join("web.raw"));
    for seed in 1..=4 {
        back_up(&service, seed).await;
        let db = StartBackup { vm: vm("db"), schedule: None, operation_id: None };
        output::<Backup>(run(&service, &db).await);
    }
    let command = ApplyRetention { vm: Some(vm("db")), ..keep_last(1) };
    let applied: AppliedRetention = output(run(&service, &command).await);
    assert_eq!((applied.forgotten.len(), applied.kept_total), (1, 3));
    assert_eq!(listed(&service).await.len(), 7);
}

#[actix::test]
async fn retention_forgets_nothing_while_the_clock_cannot_be_trusted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (service, _) = open(folder.path()).await;
    // The year 2100: whoever made it, or our clock, is wrong.
    add_foreign_snapshot(folder.path(), 4_102_444_800_000).await;
    for seed in 1..=4 {
        back_up(&service, seed).await;
    }
    let report = run(&service, &keep_last(1)).await;
    assert_eq!(report.state, OperationState::Undone);
    let reason = report.reason.expect("an undone operation has a reason");
    assert!(reason.starts_with("plan: ") && reason.contains("clock"), "{reason}");
    assert_eq!(listed(&service).await.len(), 5, "{reason}");
}

#[actix::test]
async fn a_collection_frees_space_while_a_backup_runs_and_takes_nothing_from_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (service, exports) = open(folder.path()).await;
    let first = back_up(&service, 1).await;
    back_up(&service, 2).await;
    other_program(folder.path()).await.forget(snapshot_id(&first.id)).await.expect("it is forgotten");
    let before = stored_bytes(folder.path());

    raw_image(&folder.path().join("web.raw"), 3, IMAGE_BYTES);
    exports.stop();
    let start = StartBackup { vm: vm("web"), schedule: None, operation_id: None };
    let backup = service.bus.call(&start, DEADLINE).await.expect("the command is accepted");
    service.at_step(&backup, "copy").await;
    let collected: CollectedRepository = output(run(&service, &CollectRepository::default()).await);
    assert!(collected.packs > 0, "{collected:?}");
    exports.go_on();
    output::<Backup>(service.ended(&backup).await);

    let again: CollectedRepository = output(run(&service, &CollectRepository::default()).await);
    let deleted = collected.bytes_deleted.0 + again.bytes_deleted.0;
    assert!(deleted > IMAGE_BYTES as u64 / 8, "{collected:?}, then {again:?}");
    assert!(stored_bytes(folder.path()) < before + IMAGE_BYTES as u64 / 4, "space is free again");
    let verified: VerifiedRepository = output(run(&service, &VerifyRepository::default()).await);
    assert_eq!(verified.backups, 2);
}

#[actix::test]
async fn a_verification_of_the_repository_reads_everything_or_as_much_as_it_may_and_finds_a_flipped_byte() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (service, _) = open(folder.path()).await;
    back_up(&service, 1).await;
    back_up(&service, 2).await;
    let whole: VerifiedRepository = output(run(&service, &VerifyRepository::default()).await);
    assert!(whole.packs >= 2 && whole.chunks > 0 && whole.packs_deferred == 0, "{whole:?}");
    let rolling = VerifyRepository { bytes_max: Some(ByteCount(1)), operation_id: None };
    let some: VerifiedRepository = output(run(&service, &rolling).await);
    assert_eq!((some.packs, some.packs_deferred), (1, whole.packs - 1), "at least one pack is read");
    assert!(some.bytes_read < whole.bytes_read);

    let (_, largest) =
        files_under(&folder.path().join("store")).into_iter().max().expect("the store holds a file");
    let mut bytes = std::fs::read(&largest).expect("the file exists");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&largest, bytes).expect("the file is written");
    let everything = VerifyRepository { bytes_max: Some(ByteCount::gib(1)), operation_id: None };
    for command in [VerifyRepository::default(), everything] {
        let report = run(&service, &command).await;
        assert_eq!(report.state, OperationState::Undone);
        let reason = report.reason.expect("an undone operation has a reason");
        assert!(reason.contains("the repository is damaged") && reason.contains("pack"), "{reason}");
    }
}

#[actix::test]
async fn rules_that_keep_nothing_and_vms_without_backups_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (service, _) = open(folder.path()).await;
    let none = ApplyRetention { keep: RetentionRules::default(), ..keep_last(1) };
    for (command, why) in [(none, "give at least one"), (keep_last(0), "`last` is 0")] {
        let refused = service.bus.call(&command, DEADLINE).await.expect_err("it keeps nothing");
        assert!(matches!(&refused, CallError::Refused(ApplyRetentionRefused::BadRules(_))), "{refused}");
        assert!(refused.to_string().contains(why), "{refused}");
    }
    let nobody = ApplyRetention { vm: Some(vm("nobody")), ..keep_last(1) };
    let refused = service.bus.call(&nobody, DEADLINE).await.expect_err("there is no backup");
    assert!(
        matches!(refused, CallError::Refused(ApplyRetentionRefused::NoBackups(name)) if name == vm("nobody"))
    );
}

#[actix::test]
async fn one_operation_of_a_kind_maintains_the_repository_at_a_time_and_can_be_cancelled() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = TinyS3::start().await;
    let mut config = s3_config(folder.path(), &server);
    // The service does not notice by itself that the store is down.
    config.refresh_interval = Duration::from_secs(3600);
    let service = TestService::open(folder.path(), config, Arc::new(RawExports)).await;
    service.ready().await;
    server.set_down(true);
    let first = VerifyRepository { bytes_max: None, operation_id: Some(OperationId::from_bits(5)) };
    let begun = service.bus.call(&first, DEADLINE).await.expect("the command is accepted");
    service.at_step(&begun, "verify").await;
    let refused =
        service.bus.call(&VerifyRepository::default(), DEADLINE).await.expect_err("one is under way");
    assert!(
        matches!(&refused, CallError::Refused(VerifyRepositoryRefused::UnderWay(id)) if *id == *begun.operation()),
        "{refused}"
    );
    let cancel = CancelOperation { id: begun.operation().clone() };
    service.bus.call_at(Service::Backup, &cancel, DEADLINE).await.expect("the cancellation is accepted");
    let report = service.ended(&begun).await;
    assert_eq!((report.state, report.reason.as_deref()), (OperationState::Undone, Some("cancelled")));
}
