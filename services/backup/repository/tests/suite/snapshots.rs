//! Snapshots are listed, held, forgotten by policy, checked for anomalies, compared and copied.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use backup_repository::anomaly::{AnomalyThresholds, Detector, Finding};
use backup_repository::retention::{Count, Policy, Rules};
use backup_repository::*;
use object_store::memory::InMemory;
use object_store::path::Path as Name;
use object_store::{ObjectStore, ObjectStoreExt};
use rand::Rng;

use crate::support::*;

const DAY_MS: u64 = 24 * 60 * 60 * 1000;

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

async fn open(store: &Store, cache: &Path) -> Repository {
    let settings = EngineSettings { cache: Some(cache.to_owned()), ..EngineSettings::default() };
    Repository::open(store.clone(), secret(), settings).await.unwrap()
}

async fn taken(repository: &Repository, disk: &MemoryDisk, days_ago: u64) -> Snapshot {
    let taken_at_unix_ms = now_ms() - days_ago * DAY_MS;
    back_up(repository, BackupRequest { taken_at_unix_ms, ..request(disk) }).await
}

fn keep_last(count: u32) -> Policy {
    let keep_last = Some(Count::Newest(count.try_into().unwrap()));
    let keep_minimum = 1.try_into().unwrap();
    Policy::try_from(Rules { keep_last, keep_minimum, ..Rules::default() }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_from_the_local_file_is_the_list_from_the_store_whatever_happened_to_the_file() {
    let (objects, folder) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
    let store = Store::new(objects.clone());
    new_repository(store.clone()).await;
    let repository = open(&store, folder.path()).await;
    let file = folder.path().join(repository.id().to_string()).join("snapshots");
    let disk = MemoryDisk::new(vec![1; 5000]);
    let mut made = Vec::new();
    for days_ago in [3, 1, 2] {
        made.push(taken(&repository, &disk, days_ago).await);
        made.sort_by_key(|snapshot| snapshot.contents.taken_at_unix_ms);
        assert_eq!(repository.snapshots().await.unwrap(), made);
    }
    let whole = std::fs::read(&file).unwrap();
    for damage in [&whole[..whole.len() - 7], &whole[3..], b"", b"nonsense"] {
        std::fs::write(&file, damage).unwrap();
        assert_eq!(repository.snapshots().await.unwrap(), made);
        assert_eq!(std::fs::read(&file).unwrap().len(), whole.len(), "it was made anew");
    }
    // What is in the file is not read from the store again, as long as the store has the same.
    let counting = Arc::new(fake_store::FakeStore::counting(objects.clone()));
    let counted = open(&Store::new(counting.clone()), folder.path()).await;
    let reads = counting.requests().reads;
    assert_eq!(counted.snapshots().await.unwrap(), made);
    assert_eq!(counting.requests().reads, reads);
    let name = Name::from(format!("snapshots/{}", made[0].id));
    objects.put(&name, "damaged".into()).await.unwrap();
    assert!(repository.snapshots().await.is_err());
    objects.delete(&name).await.unwrap();
    assert_eq!(repository.snapshots().await.unwrap(), made[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_forgets_what_it_planned_but_nothing_that_is_held() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    new_repository(store.clone()).await;
    let repository = open(&store, folder.path()).await;
    let disk = MemoryDisk::new(vec![1; 5000]);
    let mut made = Vec::new();
    for days_ago in [5, 4, 3, 2, 1] {
        made.push(taken(&repository, &disk, days_ago).await.id);
    }
    repository.hold(made[1], "evidence").await.unwrap();
    assert!(matches!(repository.hold(made[1], "").await, Err(HoldError::Reason)));
    assert!(matches!(repository.hold(SnapshotId::generate(), "x").await, Err(HoldError::Snapshot(_))));
    let [hold] = &repository.holds().await.unwrap()[..] else { panic!("one hold") };
    assert_eq!((hold.snapshot, hold.reason.as_str()), (made[1], "evidence"));
    assert!(matches!(repository.forget(made[1]).await, Err(SnapshotError::Held { .. })));
    let planned = repository.plan_to_forget(&keep_last(2)).await.unwrap();
    assert!(planned.clock_check.is_ok(), "{:?}", planned.clock_check);
    // Held after the plan was made.
    repository.hold(made[2], "later").await.unwrap();
    assert_eq!(repository.forget_planned(planned).await.unwrap(), [made[0]]);
    assert_eq!(repository.snapshot_ids().await.unwrap().len(), 4);
    repository.release(made[2]).await.unwrap();
    let planned = repository.plan_to_forget(&keep_last(2)).await.unwrap();
    assert_eq!(repository.forget_planned(planned).await.unwrap(), [made[2]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forgotten_while_the_clock_fails_its_checks() {
    let (store, folder) = (memory(), tempfile::tempdir().unwrap());
    new_repository(store.clone()).await;
    let repository = open(&store, folder.path()).await;
    let disk = MemoryDisk::new(vec![1; 5000]);
    for days_ago in [2, 1] {
        taken(&repository, &disk, days_ago).await;
    }
    let refused = async || {
        let planned = repository.plan_to_forget(&keep_last(1)).await.unwrap();
        assert_eq!(planned.plan.forgotten().count(), 1, "the plan is shown all the same");
        let refused = repository.forget_planned(planned).await.unwrap_err();
        assert!(matches!(refused, ForgetError::Clock(_)), "{refused}");
        assert_eq!(repository.snapshot_ids().await.unwrap().len(), 2);
    };
    // This host has stored a later time.
    let seen = folder.path().join(repository.id().to_string()).join("clock");
    std::fs::write(&seen, (now_ms() + DAY_MS).to_string()).unwrap();
    refused().await;
    std::fs::remove_file(&seen).unwrap();
    // A snapshot from the future.
    let taken_at_unix_ms = now_ms() + DAY_MS;
    let future = back_up(&repository, BackupRequest { taken_at_unix_ms, ..request(&disk) }).await;
    let planned = repository.plan_to_forget(&keep_last(1)).await.unwrap();
    assert!(repository.forget_planned(planned).await.is_err());
    repository.forget(future.id).await.unwrap();
    let planned = repository.plan_to_forget(&keep_last(1)).await.unwrap();
    assert_eq!(repository.forget_planned(planned).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attack_that_encrypts_a_disk_is_reported_with_its_backup() {
    let mut rng = seeded();
    let repository = new_repository(memory()).await;
    let detector = Detector::try_from(AnomalyThresholds::default()).unwrap();
    let mut disk = MemoryDisk::new(vec![0; 48 * MIB]);
    crate::support::text(&mut rng, &mut disk.bytes);
    for days_ago in (1..=5).rev() {
        let at = days_ago as usize * 3 * MIB;
        crate::support::text(&mut rng, &mut disk.bytes[at..at + 2 * MIB]);
        let ordinary = taken(&repository, &disk, days_ago).await;
        assert_eq!(repository.find_anomalies(&ordinary, &detector).await.unwrap(), [], "day {days_ago}");
    }
    rng.fill_bytes(&mut disk.bytes);
    let attacked = taken(&repository, &disk, 0).await;
    let findings = repository.find_anomalies(&attacked, &detector).await.unwrap();
    assert!(matches!(findings[..], [Finding::LikelyEncryption { .. }, ..]), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_names_the_segments_that_differ_and_no_others() {
    let mut rng = seeded();
    let repository = new_repository(memory()).await;
    let mut disk = MemoryDisk::new(disk(&mut rng, 30 * MIB));
    let before = taken(&repository, &disk, 2).await;
    disk.write(5 * MIB, b"something else");
    disk.write(9 * MIB, b"in the next one");
    disk.write(29 * MIB, b"in the last");
    let after = taken(&repository, &disk, 1).await;
    let mib = |from: u64, to: u64| from * MIB as u64..to * MIB as u64;
    let [diff] = &repository.diff(&before, &after).await.unwrap()[..] else { panic!("one disk") };
    assert_eq!(diff.ranges, [mib(4, 12), mib(28, 30)]);
    assert_eq!(diff.bytes(), 10 * MIB as u64);
    assert_eq!(repository.diff(&after, &after).await.unwrap()[0].ranges, []);
    let grown = MemoryDisk::new([disk.bytes.clone(), vec![7; 3 * MIB]].concat());
    let grown = taken(&repository, &grown, 0).await;
    for (one, other) in [(&after, &grown), (&grown, &after)] {
        let diff = &repository.diff(one, other).await.unwrap()[0];
        assert_eq!(diff.ranges, [mib(28, 33)], "the last segment grew, and one came");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_copied_to_another_repository_are_the_same_there_and_cost_what_changed() {
    let mut rng = seeded();
    let ours = new_repository(memory()).await;
    let theirs = new_repository(memory()).await;
    let mut disk = MemoryDisk::new(disk(&mut rng, 22 * MIB));
    let mut stream = vec![0; 9 * MIB];
    rng.fill_bytes(&mut stream);
    let with_stream = |disk: &MemoryDisk| BackupRequest {
        streams: vec![("dump".into(), Box::new(std::io::Cursor::new(stream.clone())))],
        ..request(disk)
    };
    let first = back_up(&ours, with_stream(&disk)).await;
    let before = disk.bytes.clone();
    disk.write(9 * MIB, b"something else");
    let taken_at_unix_ms = first.contents.taken_at_unix_ms + 1;
    let second = back_up(&ours, BackupRequest { taken_at_unix_ms, ..with_stream(&disk) }).await;
    let (progress, cancel) = (Arc::default(), Cancel::new());
    let ids = [second.id, first.id];
    let report = ours.copy_to(&theirs, &ids, &progress, &cancel).await.unwrap();
    assert_eq!(report.copied, [first.id, second.id], "oldest first");
    for (snapshot, bytes) in [(&first, &before), (&second, &disk.bytes)] {
        let there = theirs.snapshot(snapshot.id).await.unwrap();
        assert!(&restored(&theirs, &there).await == bytes);
        assert_eq!(theirs.definition(&there).unwrap(), b"<domain/>");
        assert_eq!(there.contents.tags, snapshot.contents.tags);
        let mut out = Vec::new();
        let whole = 0..stream.len() as u64;
        theirs.restore_stream(&there, "dump", whole, &mut out, &progress, &cancel).await.unwrap();
        assert!(out == stream);
    }
    let stats = theirs.snapshot(second.id).await.unwrap().contents.stats;
    assert_eq!((stats.segments_read, stats.dirty_bitmaps_rejected), (1, 0), "{stats:?}");
    let again = ours.copy_to(&theirs, &ids, &progress, &cancel).await.unwrap();
    assert_eq!((again.copied.len(), again.already_there.len()), (0, 2));
    let unknown = ours.copy_to(&theirs, &[SnapshotId::generate()], &progress, &cancel).await;
    assert!(matches!(unknown, Err(CopySnapshotsError::Snapshots(SnapshotError::Unknown { .. }))));
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_verifications_cover_all_packs_within_their_budget() {
    let mut rng = seeded();
    let repository = new_repository(memory()).await;
    for days_ago in 1..=3 {
        taken(&repository, &MemoryDisk::new(disk(&mut rng, 2 * MIB)), days_ago).await;
    }
    let roll = async |bytes_max, older_than| {
        let scope = VerifyScope::Rolling { bytes_max, older_than };
        repository.verify(scope, &Arc::default(), &Cancel::new()).await.unwrap()
    };
    let packs = repository.info().await.unwrap().packs;
    let mut read = 0;
    while read < packs {
        let report = roll(1, Duration::from_hours(24)).await;
        assert!(report.is_sound());
        assert_eq!(report.packs, 1, "one pack whatever the budget");
        read += 1;
        assert_eq!(report.packs_left, packs - read);
    }
    let report = roll(u64::MAX, Duration::from_hours(24)).await;
    assert_eq!((report.packs, report.packs_left), (0, 0), "all were read today");
    assert_eq!(roll(u64::MAX, Duration::ZERO).await.packs, packs);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_pack_goes_to_quarantine_and_the_next_backup_makes_old_snapshots_whole_again() {
    let mut rng = seeded();
    let objects = Arc::new(InMemory::new());
    let repository = new_repository(Store::new(objects.clone())).await;
    let disk = MemoryDisk::tracked(disk(&mut rng, 6 * MIB));
    let first = back_up(&repository, request(&disk)).await;
    let pack = objects.list(Some(&Name::from("data"))).next_one().await;
    let mut bytes = objects.get(&pack).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[70_000] ^= 1;
    objects.put(&pack, bytes.into()).await.unwrap();
    let verify =
        async || repository.verify(VerifyScope::Everything, &Arc::default(), &Cancel::new()).await.unwrap();
    let found = verify().await;
    assert!(!found.is_sound());
    let report = repository.quarantine(&found).await.unwrap();
    assert_eq!((report.packs.len(), report.blobs_lost), (1, 1), "{report:?}");
    assert!(report.blobs_saved > 5, "{report:?}");
    assert!(!verify().await.is_sound(), "what is lost is lost");
    // On top of the parent, by a map that says that nothing changed.
    let parent = Some(first.id);
    let second = back_up(&repository, BackupRequest { parent, ..request(&disk) }).await;
    assert!(second.contents.stats.new_bytes > 0);
    assert!(verify().await.is_sound());
    for snapshot in [&first, &second] {
        assert!(restored(&repository, snapshot).await == disk.bytes);
    }
    let nothing = repository.quarantine(&found).await.unwrap();
    assert_eq!(nothing, QuarantineReport::default(), "again is nothing");
}

/// The first name of a listing.
trait NextOne {
    async fn next_one(self) -> Name;
}

impl<S: futures::Stream<Item = object_store::Result<object_store::ObjectMeta>> + Unpin> NextOne for S {
    async fn next_one(mut self) -> Name {
        use futures::StreamExt;
        self.next().await.unwrap().unwrap().location
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_is_what_is_sealed_now_and_not_what_was_cached_of_its_id() {
    let (place, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let url = format!("file://{}", place.path().display()).parse().unwrap();
    let store = StoreSettings::new(url).open_for_init().unwrap();
    let settings = EngineSettings { cache: Some(cache.path().to_owned()), ..EngineSettings::default() };
    let repository = Repository::init(store, secret(), cheap(), settings).await.unwrap();
    let mut disk = MemoryDisk::new(disk(&mut seeded(), 5 * MIB));
    let first = back_up(&repository, request(&disk)).await;
    assert_eq!(repository.snapshots().await.unwrap().len(), 1, "it is cached now");

    disk.write(MIB, b"something else");
    let draft = repository.copy(request(&disk), &Arc::default(), &Cancel::new()).await.unwrap();
    repository.forget(first.id).await.unwrap();
    repository.seal(&draft, first.id).await.unwrap();
    let latest =
        repository.find(&Selector::Latest { machine: first.contents.machine.clone() }).await.unwrap();
    assert_eq!(latest.id, first.id);
    assert!(restored(&repository, &latest).await == disk.bytes);
}
