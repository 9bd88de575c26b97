//! A store that is down: refused at once with a sentence, bounded in time, used again when it returns.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::gate::GatedExports;
use crate::support::s3::TinyS3;
use crate::support::*;
use backup::adapters::repository::{RepositoryConfig, RepositoryCreation};
use bus::CallError;
use contract::backup::{ListBackups, StartBackup, StartBackupRefused};
use contract::message::FailureKind;
use contract::operation::OperationState;

fn start() -> StartBackup {
    StartBackup { vm: vm("web"), schedule: None, operation_id: None }
}

async fn service_with_web(folder: &Path, config: RepositoryConfig) -> (TestService, GatedExports) {
    let exports = GatedExports::of(Arc::new(RawExports));
    let service = TestService::open(folder, config, Arc::new(exports.clone())).await;
    let image = folder.join("web.raw");
    raw_image(&image, 1, 4 << 20);
    service.provisioner.add_raw_vm(&vm("web"), &image);
    (service, exports)
}

/// Waits until the service knows that the store is down, and returns its sentence.
async fn refused_as_down(service: &TestService) -> String {
    testkit::eventually_some("the store is down", Duration::from_secs(60), async || {
        let sent = Instant::now();
        let answer = service.bus.call(&start(), DEADLINE).await;
        assert!(sent.elapsed() < Duration::from_secs(5), "the answer comes at once");
        match answer {
            Err(CallError::Failed(failure)) => {
                assert_eq!(failure.kind, FailureKind::Unavailable);
                Some(failure.message)
            }
            Err(CallError::Refused(StartBackupRefused::UnderWay { .. })) | Ok(_) => None,
            Err(other) => panic!("{other}"),
        }
    })
    .await
}

async fn works_again(service: &TestService) {
    let begun = testkit::eventually_some("the store is up", Duration::from_secs(60), async || {
        service.bus.call(&start(), DEADLINE).await.ok()
    })
    .await;
    let report = service.ended(&begun).await;
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    let listed = service.bus.call(&ListBackups::default(), DEADLINE).await.expect("the backups are listed");
    assert!(listed.iter().any(|backup| backup.id.as_str() == begun.operation().as_str()));
}

#[actix::test]
async fn a_folder_that_is_away_is_reported_and_used_again_when_it_is_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (service, _) = service_with_web(folder.path(), repository_config(folder.path())).await;
    works_again(&service).await;
    let [here, away] = ["store", "away"].map(|name| folder.path().join(name));
    std::fs::rename(&here, &away).expect("the folder is moved");
    let reason = refused_as_down(&service).await;
    assert!(reason.starts_with("the backup store cannot be used"), "{reason}");
    assert!(!here.exists(), "no other repository is created in its place");
    std::fs::rename(&away, &here).expect("the folder is moved back");
    works_again(&service).await;
}

#[actix::test]
async fn a_repository_is_not_created_unless_the_settings_ask_for_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let forbidden =
        RepositoryConfig { creation: RepositoryCreation::Forbidden, ..repository_config(folder.path()) };
    std::fs::create_dir(folder.path().join("store")).expect("the folder is created");
    let (service, _) = service_with_web(folder.path(), forbidden).await;
    testkit::eventually("the refusal says what to do", async || {
        refused_as_down(&service).await.contains("backup.create_repository = true")
    })
    .await;
    let left = std::fs::read_dir(folder.path().join("store")).expect("the file exists").count();
    assert_eq!(left, 0);
}

#[actix::test]
async fn an_empty_folder_where_a_repository_was_gets_no_second_one() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (service, _) = service_with_web(folder.path(), repository_config(folder.path())).await;
    works_again(&service).await;
    let [here, away] = ["store", "away"].map(|name| folder.path().join(name));
    std::fs::rename(&here, &away).expect("the folder is moved");
    std::fs::create_dir(&here).expect("an empty mount point");
    testkit::eventually("the refusal says that it is gone", async || {
        refused_as_down(&service).await.contains("is the disk mounted?")
    })
    .await;
    assert_eq!(std::fs::read_dir(&here).expect("the file exists").count(), 0);
}

#[actix::test]
async fn a_store_that_answers_500_ends_a_backup_with_a_reason_and_is_used_again_when_it_is_healthy() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = TinyS3::start().await;
    let (service, exports) = service_with_web(folder.path(), s3_config(folder.path(), &server)).await;
    works_again(&service).await;
    exports.stop();
    raw_image(&folder.path().join("web.raw"), 2, 4 << 20);
    let begun = service.bus.call(&start(), DEADLINE).await.expect("the command is accepted");
    service.at_step(&begun, "copy").await;
    server.set_down(true);
    exports.go_on();
    let report = service.ended(&begun).await;
    assert_eq!(report.state, OperationState::Undone);
    let reason = report.reason.expect("an undone operation has a reason");
    assert!(reason.starts_with("copy: ") && reason.contains("500"), "{reason}");
    assert!(service.provisioner.state().open.is_empty(), "the exports are closed");
    let reason = refused_as_down(&service).await;
    assert!(reason.contains("500"), "{reason}");
    server.set_down(false);
    works_again(&service).await;
}
