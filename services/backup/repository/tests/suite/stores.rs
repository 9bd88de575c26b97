//! One suite of promises, held on every kind of store: memory, folder, S3.

use std::sync::Arc;
use std::time::Duration;

use backup_repository::retention::{Count, Policy, Rules};
use backup_repository::*;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use rand::rngs::StdRng;

use crate::support::proxy::{Fault, Plan, Proxy};
use crate::support::s3::S3Server;
use crate::support::*;

/// All promises on one kind of store; `place` gives an empty store of that name, `again` the same store anew.
async fn suite(place: &dyn Fn(&str) -> Store, rng: &mut StdRng) {
    what_is_restored_is_what_was_backed_up(place("restore"), rng).await;
    an_unchanged_disk_stores_nothing_again(place("unchanged"), rng).await;
    sealing_twice_is_sealing_once(place("seal"), rng).await;
    snapshots_are_found_by_id_prefix_and_machine(place("find"), rng).await;
    what_is_forgotten_is_collected(place("collect"), rng).await;
    what_is_not_ours_is_refused_and_left_alone(place("refused")).await;
}

async fn what_is_restored_is_what_was_backed_up(store: Store, rng: &mut StdRng) {
    let disk = MemoryDisk::new(disk(rng, 13 * MIB + 4711));
    let repository = new_repository(store.clone()).await;
    let progress = Arc::new(Progress::new());
    let snapshot = repository.backup(request(&disk), &progress, &Cancel::new()).await.unwrap();
    let reading = progress.read();
    assert_eq!(reading.done_bytes, disk.bytes.len() as u64);
    assert_eq!(reading.total_bytes, reading.done_bytes);
    assert!(restored(&repository, &snapshot).await == disk.bytes, "restored by the same process");

    let reopened = reopened(store).await;
    let found = reopened.snapshot(snapshot.id).await.unwrap();
    assert_eq!(found, snapshot);
    assert!(restored(&reopened, &found).await == disk.bytes, "restored by another process");
}

async fn an_unchanged_disk_stores_nothing_again(store: Store, rng: &mut StdRng) {
    let disk = MemoryDisk::new(disk(rng, 9 * MIB));
    let repository = new_repository(store.clone()).await;
    let first = back_up(&repository, request(&disk)).await;
    let second = back_up(&reopened(store).await, request(&disk)).await;
    assert_eq!(second.contents.disks, first.contents.disks);
    assert_eq!(second.contents.stats.new_bytes, 0);
    assert_eq!(second.contents.stats.stored_bytes, 0);
}

async fn sealing_twice_is_sealing_once(store: Store, rng: &mut StdRng) {
    let repository = new_repository(store).await;
    let one = MemoryDisk::new(disk(rng, MIB));
    let draft = repository.copy(request(&one), &Arc::default(), &Cancel::new()).await.unwrap();
    assert_eq!(repository.snapshots().await.unwrap(), [], "a draft is no backup");
    let id = SnapshotId::generate();
    let first = repository.seal(&draft, id).await.unwrap();
    assert_eq!(repository.seal(&draft, id).await.unwrap(), first);
    assert_eq!(repository.snapshots().await.unwrap(), [first]);

    let other = BackupRequest { machine: "other".into(), ..request(&one) };
    let other = repository.copy(other, &Arc::default(), &Cancel::new()).await.unwrap();
    let refused = repository.seal(&other, id).await.unwrap_err();
    assert!(matches!(refused, SealBackupError::IdTaken { id: taken } if taken == id), "{refused}");
}

async fn snapshots_are_found_by_id_prefix_and_machine(store: Store, rng: &mut StdRng) {
    let repository = new_repository(store).await;
    let disk = MemoryDisk::new(disk(rng, MIB));
    let mut made = Vec::new();
    for (machine, at) in [("web", 10), ("web", 30), ("db", 20)] {
        let request = BackupRequest { machine: machine.into(), taken_at_unix_ms: at, ..request(&disk) };
        made.push(back_up(&repository, request).await);
    }
    let find = async |selector: Selector| repository.find(&selector).await;
    let latest = find(Selector::Latest { machine: "web".into() }).await.unwrap();
    assert_eq!(latest, made[1]);
    assert_eq!(find(Selector::Id(made[2].id)).await.unwrap(), made[2]);
    let whole = made[0].id.to_string();
    assert_eq!(find(Selector::Prefix(whole[..25].to_uppercase())).await.unwrap(), made[0]);
    let ambiguous = find(Selector::Prefix("0".into())).await.unwrap_err();
    assert!(matches!(ambiguous, SnapshotError::Ambiguous { count: 3, .. }), "{ambiguous}");
    let order: Vec<_> = repository.snapshots().await.unwrap().iter().map(|s| s.id).collect();
    assert_eq!(order, [made[0].id, made[2].id, made[1].id], "oldest first");

    repository.forget(made[1].id).await.unwrap();
    repository.forget(made[1].id).await.unwrap();
    let latest = find(Selector::Latest { machine: "web".into() }).await.unwrap();
    assert_eq!(latest, made[0]);
    let gone = find(Selector::Id(made[1].id)).await.unwrap_err();
    assert!(matches!(gone, SnapshotError::Unknown { .. }), "{gone}");
}

async fn what_is_forgotten_is_collected(store: Store, rng: &mut StdRng) {
    let repository = new_repository(store).await;
    let kept = MemoryDisk::new(disk(rng, 3 * MIB));
    let kept_snapshot = back_up(&repository, request(&kept)).await;
    let forgotten = back_up(&repository, request(&MemoryDisk::new(disk(rng, 2 * MIB)))).await;
    repository.forget(forgotten.id).await.unwrap();
    // Stores that date objects by the second make them look as old as they can be.
    let settings = CollectSettings { pack_age_min: Duration::ZERO, ..CollectSettings::default() };
    let report = repository.collect(settings, &Arc::default(), &Cancel::new()).await.unwrap();
    assert_eq!((report.packs, report.packs_deleted), (4, 2), "{report:?}");
    let report = repository.verify(VerifyScope::Everything, &Arc::default(), &Cancel::new()).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert!(restored(&repository, &kept_snapshot).await == kept.bytes);
}

async fn what_is_not_ours_is_refused_and_left_alone(store: Store) {
    let open = async |secret| Repository::open(store.clone(), secret, EngineSettings::default()).await;
    let init = async || Repository::init(store.clone(), secret(), cheap(), EngineSettings::default()).await;
    assert!(matches!(open(secret()).await.unwrap_err(), OpenError::NoRepository));
    init().await.unwrap();
    assert!(matches!(init().await.unwrap_err(), OpenError::RepositoryExists));
    let wrong = Secret::passphrase("battery staple").unwrap();
    assert!(matches!(open(wrong).await.unwrap_err(), OpenError::WrongSecret));
    open(secret()).await.unwrap();
}

/// More than a page of a listing, and than one request removes.
const MANY: u64 = 1100;

#[tokio::test(flavor = "multi_thread")]
async fn more_objects_than_one_request_names_are_listed_and_removed_on_s3() {
    let server = S3Server::start_and_warm_up().await;
    removes_many(&server, "many", server.store("many"), true).await;
    // Some services delete one object with each request only.
    let plan: Plan = Arc::new(|request| {
        (request.method == "POST").then_some(Fault::Answer("501 Not Implemented", "NotImplemented"))
    });
    let proxy = Proxy::start(server.port(), plan).await;
    let by_proxy = server.settings_by(proxy.port(), "one-by-one").open_for_init().unwrap();
    removes_many(&server, "one-by-one", by_proxy, false).await;
}

async fn removes_many(server: &S3Server, place: &str, store: Store, with_one_request: bool) {
    let disk = MemoryDisk::new(disk(&mut seeded(), 3 * MIB));
    let repository = new_repository(store.clone()).await;
    assert_eq!(repository.info().await.unwrap().store.deletes_many, with_one_request);
    let snapshot = back_up(&repository, request(&disk)).await;
    let bucket = server.bucket();
    let names = (0..MANY).map(|number| Path::from(format!("{place}/index/{number:026}")));
    let written = names.map(|name| {
        let bucket = &bucket;
        async move { bucket.put(&name, PutPayload::from_static(b"no shard")).await }
    });
    let written: Vec<_> = futures::stream::iter(written).buffer_unordered(16).try_collect().await.unwrap();
    assert_eq!(written.len() as u64, MANY);
    repository.rebuild_index(&Arc::default()).await.unwrap();
    let left: Vec<_> = bucket.list(Some(&Path::from(format!("{place}/index")))).try_collect().await.unwrap();
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(restored(&reopened(store).await, &snapshot).await == disk.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_promises_hold_in_memory() {
    suite(&|_| memory(), &mut seeded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_promises_hold_in_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        let url = format!("file://{}/{name}", folder.path().display());
        StoreSettings::new(url.parse().unwrap()).open_for_init().unwrap()
    };
    suite(&place, &mut seeded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_promises_hold_on_s3() {
    let server = s3::S3Server::start().await;
    suite(&|name| server.store(name), &mut seeded()).await;
}

/// Services run this work on threads of their choice.
#[tokio::test(flavor = "multi_thread")]
async fn all_long_work_can_be_given_to_another_thread() {
    fn sendable<T: Send>(work: T) -> T {
        work
    }
    let repository = new_repository(memory()).await;
    let one = MemoryDisk::new(disk(&mut seeded(), MIB));
    let (progress, cancel) = (Arc::default(), Cancel::new());
    let backup = sendable(repository.backup(request(&one), &progress, &cancel));
    let snapshot = backup.await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vda.raw");
    sendable(repository.restore_disk(&snapshot, "vda", &path, &progress, &cancel)).await.unwrap();
    sendable(repository.verify(VerifyScope::Snapshot(&snapshot), &progress, &cancel)).await.unwrap();
    sendable(repository.rebuild_index(&Arc::default())).await.unwrap();
    let policy = Policy::try_from(Rules { keep_last: Some(Count::All), ..Rules::default() }).unwrap();
    let planned = sendable(repository.plan_to_forget(&policy)).await.unwrap();
    sendable(repository.forget_planned(planned)).await.unwrap();
    sendable(repository.collect(CollectSettings::default(), &Arc::default(), &cancel)).await.unwrap();
}
