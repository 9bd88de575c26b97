//! A store that is down: said at once and in words, bounded in time, used again when it returns.

mod support;

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup::adapters::shelf::{Making, Shelf};
use backup_repository::S3Settings;
use bus::CallError;
use contract::backup::{ListBackups, StartBackup, StartBackupRefused};
use contract::operation::OperationState;
use contract::message::FailureKind;
use support::gate::GatedDoors;
use support::s3::TinyS3;
use support::*;

fn start() -> StartBackup {
    StartBackup { vm: vm("web"), schedule: None, operation_id: None }
}

async fn office_with_web(folder: &Path, shelf: Shelf) -> (Office, GatedDoors) {
    let doors = GatedDoors::of(Arc::new(RawDoors));
    let office = Office::open(folder, shelf, Arc::new(doors.clone())).await;
    let image = folder.join("web.raw");
    raw_image(&image, 1, 4 << 20);
    office.provisioner.add_raw_vm(&vm("web"), &image);
    (office, doors)
}

/// Waits until the service knows that the store is down, and returns how it says so.
async fn told_down(office: &Office) -> String {
    testkit::eventually_some("the store is down", Duration::from_secs(60), async || {
        let asked = Instant::now();
        let answer = office.bus.call(&start(), DEADLINE).await;
        assert!(asked.elapsed() < Duration::from_secs(5), "an answer is given at once");
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

async fn works_again(office: &Office) {
    let begun = testkit::eventually_some("the store is up", Duration::from_secs(60), async || {
        office.bus.call(&start(), DEADLINE).await.ok()
    })
    .await;
    let report = office.ended(&begun).await;
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    let listed = office.bus.call(&ListBackups::default(), DEADLINE).await.expect("listed");
    assert!(listed.iter().any(|backup| backup.id.as_str() == begun.operation().as_str()));
}

#[actix::test]
async fn a_folder_that_is_away_is_told_and_used_again_when_it_is_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let (office, _) = office_with_web(folder.path(), shelf(folder.path())).await;
    works_again(&office).await;
    let [here, away] = ["store", "away"].map(|name| folder.path().join(name));
    std::fs::rename(&here, &away).expect("moved");
    let told = told_down(&office).await;
    assert!(told.starts_with("the backup store cannot be used"), "{told}");
    assert!(!here.exists(), "no other repository is made in its place");
    std::fs::rename(&away, &here).expect("moved back");
    works_again(&office).await;
}

#[actix::test]
async fn a_repository_is_not_made_unless_the_settings_ask_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let forbidden = Shelf { making: Making::Forbidden, ..shelf(folder.path()) };
    std::fs::create_dir(folder.path().join("store")).expect("made");
    let (office, _) = office_with_web(folder.path(), forbidden).await;
    testkit::eventually("it says what to do", async || {
        told_down(&office).await.contains("backup.create_repository = true")
    })
    .await;
    let left = std::fs::read_dir(folder.path().join("store")).expect("there").count();
    assert_eq!(left, 0);
}

#[actix::test]
async fn an_empty_place_where_a_repository_was_gets_no_second_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (office, _) = office_with_web(folder.path(), shelf(folder.path())).await;
    works_again(&office).await;
    let [here, away] = ["store", "away"].map(|name| folder.path().join(name));
    std::fs::rename(&here, &away).expect("moved");
    std::fs::create_dir(&here).expect("an empty mount point");
    testkit::eventually("it says that it is gone", async || {
        told_down(&office).await.contains("is the disk mounted?")
    })
    .await;
    assert_eq!(std::fs::read_dir(&here).expect("there").count(), 0);
}

fn s3_shelf(folder: &Path, server: &TinyS3) -> Shelf {
    use std::io::Write;
    let secret = folder.join("s3.secret");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&secret).expect("made");
    file.write_all(b"hush").expect("written");
    let mut shelf = shelf(folder);
    shelf.store.url = "s3://backups/loam".parse().expect("a url");
    shelf.store.s3 = Some(S3Settings {
        endpoint: Some(server.endpoint()),
        region: "us-east-1".into(),
        access_key_id: "loam".into(),
        secret_access_key_file: secret,
    });
    shelf.store.retries_max = 1;
    shelf.store.retry_timeout = Duration::from_secs(2);
    shelf
}

#[actix::test]
async fn a_store_that_answers_500_ends_a_backup_in_words_and_is_used_again_when_it_is_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = TinyS3::start().await;
    let (office, doors) = office_with_web(folder.path(), s3_shelf(folder.path(), &server)).await;
    works_again(&office).await;
    doors.shut();
    raw_image(&folder.path().join("web.raw"), 2, 4 << 20);
    let begun = office.bus.call(&start(), DEADLINE).await.expect("begun");
    office.at_step(&begun, "copy").await;
    server.set_down(true);
    doors.open();
    let report = office.ended(&begun).await;
    assert_eq!(report.state, OperationState::Undone);
    let reason = report.reason.expect("a reason");
    assert!(reason.starts_with("copy: ") && reason.contains("500"), "{reason}");
    assert!(office.provisioner.state().open.is_empty(), "the doors are closed");
    let told = told_down(&office).await;
    assert!(told.contains("500"), "{told}");
    server.set_down(false);
    works_again(&office).await;
}
