//! What a store that breaks, hangs or loses answers can do to a backup: nothing that lasts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_repository::*;
use object_store::memory::InMemory;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::fake_store::{FakeStore, Fault};
use crate::support::*;

/// Longer than any backup of these tests takes on a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(60);

fn over(objects: Arc<dyn object_store::ObjectStore>) -> Store {
    Store::new(objects).with_deadline(WAIT_MAX)
}

/// What holds of a repository whose backup died: no snapshot, nothing damaged, and the next
/// backup works.
async fn as_if_nothing_had_been(objects: &Arc<InMemory>, disk: &MemoryDisk) {
    let repository = reopened(over(objects.clone())).await;
    assert_eq!(repository.snapshots().await.unwrap(), [], "an interrupted backup does not exist");
    let snapshot = back_up(&repository, request(disk)).await;
    assert!(restored(&repository, &snapshot).await == disk.bytes);
    let report = repository.verify(VerifyScope::Everything, &Arc::default(), &Cancel::new()).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
}

/// An empty repository, and how many writes a backup of this disk takes.
async fn fresh(disk: &MemoryDisk) -> (Arc<InMemory>, usize) {
    let objects = Arc::new(InMemory::new());
    new_repository(over(objects.clone())).await;
    let copy = Arc::new(objects.fork());
    let enough = 1000;
    let counting = Arc::new(FakeStore::faulty(&copy, enough, Fault::Refuse));
    back_up(&reopened(over(counting.clone())).await, request(disk)).await;
    (objects, enough - counting.writes_left())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_fails_at_any_write_leaves_only_unreferenced_packs() {
    let disk = MemoryDisk::new(disk(&mut seeded(), 6 * MIB));
    let (_, writes) = fresh(&disk).await;
    assert!(writes >= 6, "lease, packs, shard, beat and snapshot are written: {writes}");
    for good_writes in 0..writes {
        let (objects, _) = fresh(&disk).await;
        let faulty = Arc::new(FakeStore::faulty(&objects, good_writes, Fault::Refuse));
        let repository = reopened(over(faulty)).await;
        let failed = repository.backup(request(&disk), &Arc::default(), &Cancel::new()).await;
        assert!(failed.is_err(), "at write {good_writes}");
        as_if_nothing_had_been(&objects, &disk).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_dropped_or_cancelled_at_any_write_leaves_only_unreferenced_packs() {
    let disk = MemoryDisk::new(disk(&mut seeded(), 6 * MIB));
    let (_, writes) = fresh(&disk).await;
    for good_writes in 0..writes {
        let (objects, _) = fresh(&disk).await;
        let faulty = Arc::new(FakeStore::faulty(&objects, good_writes, Fault::Hang));
        let repository = reopened(over(faulty)).await;
        let cancel = Cancel::new();
        let progress = Arc::new(Progress::new());
        let copying = repository.copy(request(&disk), &progress, &cancel);
        let outcome = tokio::time::timeout(Duration::from_millis(200), copying).await;
        if let Ok(draft) = outcome {
            // The beat and the snapshot come last.
            assert!(good_writes >= writes - 2);
            let id = SnapshotId::generate();
            let sealing = repository.seal(draft.as_ref().unwrap(), id);
            assert!(tokio::time::timeout(Duration::from_millis(200), sealing).await.is_err());
        } else {
            let copying = repository.copy(request(&disk), &progress, &cancel);
            cancel.cancel();
            let began = Instant::now();
            assert!(matches!(copying.await.unwrap_err(), CopyDisksError::Cancelled));
            assert!(began.elapsed() < WAIT_MAX, "cancelling does not wait for the store");
        }
        as_if_nothing_had_been(&objects, &disk).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_never_answers_is_given_up_in_time() {
    let disk = MemoryDisk::new(disk(&mut seeded(), MIB));
    let (objects, _) = fresh(&disk).await;
    let hung = Arc::new(FakeStore::faulty(&objects, 0, Fault::Hang));
    let store = Store::new(hung).with_deadline(Duration::from_millis(100));
    let repository = reopened(store).await;
    let error = repository.copy(request(&disk), &Arc::default(), &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, CopyDisksError::Store(StoreError::TimedOut { .. })), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_backup_of_a_process_relies_on_nothing_that_a_failed_one_left_unindexed() {
    let disk = MemoryDisk::new(disk(&mut seeded(), 6 * MIB));
    let (_, writes) = fresh(&disk).await;
    for good_writes in 0..writes {
        let (objects, _) = fresh(&disk).await;
        let faulty = Arc::new(FakeStore::faulty(&objects, good_writes, Fault::RefuseOnce));
        let repository = reopened(over(faulty)).await;
        let outcome = repository.backup(request(&disk), &Arc::default(), &Cancel::new()).await;
        // That of the beat and of the seal are overcome or not, as it happens.
        assert!(outcome.is_err() || good_writes >= writes - 2, "at write {good_writes}");
        let snapshot = back_up(&repository, request(&disk)).await;
        let elsewhere = reopened(over(objects)).await;
        assert!(restored(&elsewhere, &snapshot).await == disk.bytes, "at write {good_writes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_backups_in_one_process_neither_relies_on_what_the_other_has_not_indexed() {
    let disk = MemoryDisk::new(disk(&mut seeded(), 6 * MIB));
    let (objects, _) = fresh(&disk).await;
    let faulty = Arc::new(FakeStore::faulty(&objects, 0, Fault::HangOnceIn("index")));
    let repository = reopened(over(faulty.clone())).await;
    let (progress, cancel) = (Arc::new(Progress::new()), Cancel::new());
    let hung = tokio::spawn({
        let (repository, request, cancel) = (repository.clone(), request(&disk), cancel.clone());
        async move { repository.backup(request, &progress, &cancel).await }
    });
    eventually("its packs are stored and it names them", || faulty.has_failed()).await;
    let snapshot = back_up(&repository, request(&disk)).await;
    cancel.cancel();
    assert!(hung.await.unwrap().is_err());
    assert!(restored(&reopened(over(objects)).await, &snapshot).await == disk.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_whose_answer_was_lost_is_a_seal() {
    let disk = MemoryDisk::new(disk(&mut seeded(), MIB));
    let (objects, writes) = fresh(&disk).await;
    let faulty = Arc::new(FakeStore::faulty(&objects, writes - 1, Fault::LoseTheAnswer));
    let repository = reopened(over(faulty.clone())).await;
    let draft = repository.copy(request(&disk), &Arc::default(), &Cancel::new()).await.unwrap();
    let id = SnapshotId::generate();
    let sealed = repository.seal(&draft, id).await.unwrap();
    assert!(faulty.has_failed());
    assert_eq!(repository.seal(&draft, id).await.unwrap(), sealed);
    assert_eq!(repository.snapshots().await.unwrap(), [sealed]);
}

/// A server that takes connections and answers every request with the same bytes, or never.
async fn http_server(answer: Option<&'static str>) -> StoreSettings {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut received = [0; 4096];
                while stream.read(&mut received).await.is_ok_and(|bytes| bytes > 0) {
                    if let Some(answer) = answer {
                        // The client may have gone.
                        let _ = stream.write_all(answer.as_bytes()).await;
                    }
                }
            });
        }
    });
    let folder = tempfile::tempdir().unwrap().keep();
    s3::write_secret(&folder.join("secret"), "hush");
    let mut settings = StoreSettings::new("s3://backups/here".parse().unwrap());
    settings.s3 = Some(S3Settings {
        endpoint: Some(format!("http://127.0.0.1:{port}")),
        region: "us-east-1".into(),
        access_key_id: "key".into(),
        secret_access_key_file: folder.join("secret"),
    });
    settings.connect_timeout = Duration::from_millis(500);
    settings.request_timeout = Duration::from_millis(500);
    settings.retries_max = 2;
    settings.retry_timeout = Duration::from_secs(2);
    settings
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_service_that_is_ill_hung_or_gone_gives_a_clear_error_in_time() {
    let ill = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";
    let mut gone = http_server(None).await;
    if let Some(s3) = &mut gone.s3 {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        s3.endpoint = Some(format!("http://{closed}"));
    }
    for settings in [http_server(Some(ill)).await, http_server(None).await, gone] {
        let store = settings.open().unwrap();
        let began = Instant::now();
        let error = Repository::open(store, secret(), EngineSettings::default()).await.unwrap_err();
        assert!(
            matches!(error, OpenError::Store(StoreError::Failed { .. } | StoreError::TimedOut { .. })),
            "{error:?}"
        );
        assert!(began.elapsed() < Duration::from_secs(20), "{error:?}");
    }
}
