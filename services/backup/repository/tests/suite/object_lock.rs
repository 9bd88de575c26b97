//! What is locked on S3 cannot be deleted, whatever the credentials.

use std::sync::Arc;
use std::time::Duration;

use backup_repository::*;

use crate::support::s3::S3Server;
use crate::support::*;

const LOCKED: &str = "locked";

fn month() -> Option<ObjectLock> {
    Some(ObjectLock::new(LockMode::Compliance, 30).unwrap())
}

/// Everything that is older than a moment may go.
fn at_once() -> CollectSettings {
    CollectSettings {
        pack_age_min: Duration::ZERO,
        lease_timeout: Duration::ZERO,
        ..CollectSettings::default()
    }
}

async fn made(server: &S3Server) -> Repository {
    server.make_locked_bucket(LOCKED).await;
    let store = server.store_in(LOCKED, "web").with_object_lock(month());
    Repository::init(store, secret(), cheap(), EngineSettings::default()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_snapshot_needs_cannot_be_deleted_and_its_lock_is_extended_in_time() {
    let server = S3Server::start_and_warm_up().await;
    let repository = made(&server).await;
    let info = repository.info().await.unwrap();
    assert!(info.store.object_lock && info.store.checksums, "{info:?}");
    assert_eq!(info.object_lock, month());

    let mut rng = seeded();
    let disk = MemoryDisk::new(disk(&mut rng, 5 * MIB));
    let snapshot = back_up(&repository, request(&disk)).await;

    let kept = ["config", "keys/", "data/", "meta/", "snapshots/"];
    let versions = server.versions(LOCKED).await;
    for folder in kept {
        let of_it: Vec<_> =
            versions.iter().filter(|version| version.key.starts_with(&format!("web/{folder}"))).collect();
        assert!(!of_it.is_empty(), "there is something in {folder}");
        for version in of_it {
            let status = server.delete_version(LOCKED, version).await;
            assert_eq!(status, 403, "{} was deleted", version.key);
        }
    }

    let report = repository.collect(at_once(), &Arc::default(), &Cancel::new()).await.unwrap();
    assert!(report.locks_extended >= 3, "packs of both kinds and the snapshot: {report:?}");
    let report = repository.collect(at_once(), &Arc::default(), &Cancel::new()).await.unwrap();
    assert_eq!(report.locks_extended, 0, "they last for a week: {report:?}");

    // A lock does not stand in the way of forgetting: what is deleted is hidden, and stays until its lock is over.
    repository.forget(snapshot.id).await.unwrap();
    let report = repository.collect(at_once(), &Arc::default(), &Cancel::new()).await.unwrap();
    assert!(report.packs_deleted > 0, "{report:?}");
    let again =
        Repository::open(server.store_in(LOCKED, "web"), secret(), EngineSettings::default()).await.unwrap();
    assert!(again.snapshots().await.unwrap().is_empty());
    assert_eq!(again.info().await.unwrap().object_lock, month(), "the lock is in the config");
    let still = server.versions(LOCKED).await;
    assert!(versions.iter().filter(|old| old.key.contains("/data/")).all(|old| still.contains(old)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_refused_where_nothing_can_be_locked_and_nothing_is_left_behind() {
    let server = S3Server::start_and_warm_up().await;
    let folder = tempfile::tempdir().unwrap();
    let url = format!("file://{}", folder.path().display()).parse().unwrap();
    for store in [server.store("unlocked"), StoreSettings::new(url).open().unwrap(), memory()] {
        let refused = Repository::init(
            store.clone().with_object_lock(month()),
            secret(),
            cheap(),
            EngineSettings::default(),
        );
        assert!(matches!(refused.await, Err(OpenError::ObjectLockUnsupported)));
        let found = Repository::open(store, secret(), EngineSettings::default()).await;
        assert!(matches!(found, Err(OpenError::NoRepository)), "{found:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_attacker_with_the_credentials_deletes_or_writes_over_comes_back() {
    let server = S3Server::start_and_warm_up().await;
    let repository = made(&server).await;
    let mut rng = seeded();
    let disk = MemoryDisk::new(disk(&mut rng, 40 * MIB));
    let snapshot = back_up(&repository, request(&disk)).await;
    let before_the_attack = chrono::Utc::now();
    // The server's times have whole seconds: the attack is to come in a later one.
    while chrono::Utc::now().timestamp() <= before_the_attack.timestamp() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let objects = server.versions(LOCKED).await;
    for (number, object) in objects.iter().filter(|object| !object.is_deletion).enumerate() {
        if number % 3 == 0 {
            assert_eq!(server.overwrite(LOCKED, &object.key, b"pay up").await, 200);
        } else {
            assert_eq!(server.delete(LOCKED, &object.key).await, 204);
        }
    }
    let store = server.store_in(LOCKED, "web");
    assert!(Repository::open(store.clone(), secret(), EngineSettings::default()).await.is_err());

    let planned = store.undelete(before_the_attack, &Arc::default(), true).await.unwrap();
    assert!(planned.objects.iter().any(|name| name == "config"), "{planned:?}");
    assert_eq!(
        store.undelete(chrono::Utc::now(), &Arc::default(), true).await.unwrap().objects,
        Vec::<String>::new()
    );
    let progress = Arc::<Progress>::default();
    let done = store.undelete(before_the_attack, &progress, false).await.unwrap();
    assert_eq!(done, planned);
    let reading = progress.read();
    assert!(reading.done_bytes > 0 && reading.done_bytes == reading.total_bytes, "{reading:?}");

    let repository = Repository::open(store.clone(), secret(), EngineSettings::default()).await.unwrap();
    repository.rebuild_index(&Arc::default()).await.unwrap();
    let report = repository.verify(VerifyScope::Everything, &Arc::default(), &Cancel::new()).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    let found = repository.snapshots().await.unwrap();
    assert_eq!(found.iter().map(|found| found.id).collect::<Vec<_>>(), [snapshot.id]);
    assert!(restored(&repository, &found[0]).await == disk.bytes);
    let (mut locked, mut packs) = (0, std::collections::HashSet::new());
    for version in server.versions(LOCKED).await.iter().filter(|version| version.key.contains("/data/")) {
        packs.insert(version.key.clone());
        locked += usize::from(server.delete_version(LOCKED, version).await == 403);
    }
    assert!(
        locked >= 2 * packs.len(),
        "what was there before and what came back: {locked} of {}",
        packs.len()
    );
}
