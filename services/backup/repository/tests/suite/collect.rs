//! Collection takes what nothing needs, and nothing else, whatever goes on beside it.

use std::sync::Arc;
use std::time::Duration;

use backup_repository::*;
use futures::StreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::fake_store::FakeStore;
use crate::support::*;

/// Rewrites without bounds, so that what rewriting could do wrong has every chance.
const REWRITING: CollectSettings = CollectSettings {
    pack_age_min: Duration::ZERO,
    lease_timeout: Duration::ZERO,
    rewrite_below_percent: 70,
    rewrite_bytes_max: u64::MAX,
    reencrypt_old_epochs: false,
};
/// Every pack counts as old, and no lease as expired.
const EAGER: CollectSettings =
    CollectSettings { pack_age_min: Duration::ZERO, lease_timeout: Duration::from_secs(3600), ..REWRITING };
/// Every pack counts as old and every lease as expired.
const RUTHLESS: CollectSettings =
    CollectSettings { pack_age_min: Duration::ZERO, lease_timeout: Duration::ZERO, ..REWRITING };

async fn collect(repository: &Repository, settings: CollectSettings) -> CollectReport {
    repository.collect(settings, &Arc::default(), &Cancel::new()).await.unwrap()
}

async fn copy(repository: &Repository, request: BackupRequest) -> Draft {
    repository.copy(request, &Arc::default(), &Cancel::new()).await.unwrap()
}

async fn sound(repository: &Repository) -> bool {
    let report = repository.verify(VerifyScope::Everything, &Arc::default(), &Cancel::new()).await.unwrap();
    if !report.is_sound() {
        println!("{report:#?}");
    }
    report.is_sound()
}

async fn names(objects: &InMemory) -> Vec<String> {
    let mut names: Vec<_> =
        objects.list(None).map(|object| object.unwrap().location.to_string()).collect().await;
    names.sort();
    names
}

/// A repository in memory and a disk.
async fn place(rng: &mut StdRng) -> (Arc<InMemory>, Repository, MemoryDisk) {
    let objects = Arc::new(InMemory::new());
    let repository = new_repository(Store::new(objects.clone())).await;
    (objects, repository, MemoryDisk::new(disk(rng, 3 * MIB)))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_forgotten_backups_needed_goes_and_all_else_stays() {
    let mut rng = seeded();
    let (objects, repository, one) = place(&mut rng).await;
    let other = MemoryDisk::new(disk(&mut rng, 2 * MIB));
    let first = back_up(&repository, request(&one)).await;
    let second = back_up(&repository, request(&other)).await;
    let all = collect(&repository, EAGER).await;
    assert_eq!((all.packs, all.packs_condemned, all.packs_deleted), (4, 0, 0), "everything is needed");

    repository.forget(first.id).await.unwrap();
    let report = collect(&repository, EAGER).await;
    assert_eq!((report.packs_deleted, report.packs_waiting), (2, 0), "{report:?}");
    assert!(report.bytes_deleted > 0);
    assert!(restored(&repository, &second).await == other.bytes);
    assert!(sound(&repository).await);
    assert!(restored(&reopened(Store::new(objects.clone())).await, &second).await == other.bytes);

    repository.forget(second.id).await.unwrap();
    collect(&repository, EAGER).await;
    let left = names(&objects).await;
    let stays = |name: &str| name == "config" || name.starts_with("keys/") || name.starts_with("verified/");
    assert!(left.iter().all(|name| stays(name)), "{left:?}");

    let again = back_up(&repository, request(&one)).await;
    assert!(restored(&repository, &again).await == one.bytes, "what went is stored again");
}

/// All of some work that is over was expected, and there was some.
fn total_bytes(progress: &Progress) -> u64 {
    let reading = progress.read();
    assert_eq!(reading.done_bytes, reading.total_bytes);
    assert!(reading.done_bytes > 0);
    reading.done_bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn how_far_it_is_comes_to_the_whole_work_in_the_end() {
    let mut rng = seeded();
    let (_, repository, mut one) = place(&mut rng).await;
    let first = back_up(&repository, request(&one)).await;
    one.bytes[..2 * MIB].copy_from_slice(&disk(&mut rng, 2 * MIB));
    back_up(&repository, request(&one)).await;
    let progress = Arc::<Progress>::default();
    repository.rebuild_index(&progress).await.unwrap();
    let all_packs = total_bytes(&progress);

    repository.forget(first.id).await.unwrap();
    let (planning, collecting) = (Arc::<Progress>::default(), Arc::<Progress>::default());
    let planned = repository.plan_collection(REWRITING, &planning).await.unwrap();
    let recipes = total_bytes(&planning);
    assert!(recipes < all_packs);
    let report = repository.collect(REWRITING, &collecting, &Cancel::new()).await.unwrap();
    assert!(report.bytes_rewritten > 0 && report.bytes_rewritten == planned.bytes_rewritten, "{report:?}");
    assert!(total_bytes(&collecting) > recipes + report.bytes_rewritten);
}

#[tokio::test(flavor = "multi_thread")]
async fn young_packs_of_an_interrupted_backup_are_kept() {
    let mut rng = seeded();
    let (_, repository, one) = place(&mut rng).await;
    let draft = copy(&repository, request(&one)).await;
    repository.discard(&draft).await.unwrap();
    assert_eq!(collect(&repository, CollectSettings::default()).await.packs_condemned, 0);
    let sealed = repository.seal(&draft, SnapshotId::generate()).await.unwrap();
    assert!(restored(&repository, &sealed).await == one.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_backup_keeps_what_it_relies_on() {
    let mut rng = seeded();
    let (_, repository, one) = place(&mut rng).await;
    let old = back_up(&repository, request(&one)).await;
    // Copied, not sealed: all it needs is in the packs of the old backup.
    let draft = copy(&repository, request(&one)).await;
    repository.forget(old.id).await.unwrap();
    let report = collect(&repository, EAGER).await;
    assert_eq!((report.packs_condemned, report.packs_deleted, report.packs_waiting), (2, 0, 2));

    // Begun after the packs were condemned: relies on none of them.
    let later = back_up(&repository, request(&one)).await;
    assert_eq!(later.contents.disks, old.contents.disks);
    assert!(later.contents.stats.new_bytes > 0, "condemned packs are not relied on");
    repository.forget(later.id).await.unwrap();

    let sealed = repository.seal(&draft, SnapshotId::generate()).await.unwrap();
    let report = collect(&repository, EAGER).await;
    assert!(sound(&repository).await, "{report:?}");
    assert!(restored(&repository, &sealed).await == one.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_pack_of_which_everything_is_needed_is_left_alone() {
    let (objects, repository, _) = place(&mut seeded()).await;
    back_up(&repository, request(&MemoryDisk::new(vec![7; 200]))).await;
    let before = names(&objects).await;
    let report = collect(&repository, EAGER).await;
    assert_eq!((report.packs, report.packs_rewritten, report.packs_condemned), (2, 0, 0), "{report:?}");
    assert_eq!(names(&objects).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condemned_pack_that_came_to_be_needed_is_put_together_anew() {
    let mut rng = seeded();
    let (objects, repository, _) = place(&mut rng).await;
    let one = MemoryDisk::new(disk(&mut rng, 8 * MIB));
    let old = back_up(&repository, request(&one)).await;
    // It needs one of the two segments of the old backup, and stores a recipe of its own.
    let half = MemoryDisk::new(one.bytes[..4 * MIB].to_vec());
    let draft = copy(&repository, request(&half)).await;
    repository.forget(old.id).await.unwrap();
    let report = collect(&repository, EAGER).await;
    assert_eq!((report.packs_condemned, report.packs_waiting), (3, 3), "the lease blocks: {report:?}");
    let sealed = repository.seal(&draft, SnapshotId::generate()).await.unwrap();
    let report = collect(&repository, EAGER).await;
    let CollectReport { packs_rewritten, packs_deleted, packs_waiting, .. } = report;
    assert_eq!((packs_rewritten, packs_deleted, packs_waiting), (3, 3, 0), "{report:?}");
    let left = names(&objects).await;
    assert!(!left.iter().any(|name| name.starts_with("condemned/")), "{left:?}");
    let again = back_up(&repository, request(&half)).await;
    assert_eq!(again.contents.stats.new_bytes, 0, "what was put together anew is relied on");
    assert!(sound(&repository).await);
    assert!(restored(&repository, &sealed).await == half.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_whose_lease_expired_cannot_seal_what_is_gone() {
    let mut rng = seeded();
    let (_, repository, one) = place(&mut rng).await;
    let draft = copy(&repository, request(&one)).await;
    let report = collect(&repository, RUTHLESS).await;
    assert_eq!(report.packs_deleted, 2, "{report:?}");
    let refused = repository.seal(&draft, SnapshotId::generate()).await.unwrap_err();
    assert!(matches!(refused, SealBackupError::DraftExpired), "{refused:?}");
    assert_eq!(repository.snapshots().await.unwrap(), []);
    let again = back_up(&repository, request(&one)).await;
    assert!(restored(&repository, &again).await == one.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_is_being_collected_is_not_built_upon() {
    let mut rng = seeded();
    let (_, repository, one) = place(&mut rng).await;
    let tracked = MemoryDisk::tracked(one.bytes.clone());
    let old = back_up(&repository, request(&tracked)).await;
    let draft = copy(&repository, request(&tracked)).await;
    repository.forget(old.id).await.unwrap();
    collect(&repository, EAGER).await;
    let sealed = repository.seal(&draft, SnapshotId::generate()).await.unwrap();
    let child = BackupRequest { parent: Some(sealed.id), ..request(&tracked) };
    let child = back_up(&repository, child).await;
    assert_eq!(child.contents.stats.segments_reused, 0);
    repository.forget(sealed.id).await.unwrap();
    for _ in 0..2 {
        collect(&repository, EAGER).await;
    }
    assert!(sound(&repository).await);
    assert!(restored(&repository, &child).await == one.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_or_index_stops_collection_before_it_deletes() {
    let mut rng = seeded();
    let (objects, repository, one) = place(&mut rng).await;
    let kept = back_up(&repository, request(&one)).await;
    let forgotten = back_up(&repository, request(&MemoryDisk::new(disk(&mut rng, MIB)))).await;
    repository.forget(forgotten.id).await.unwrap();
    let before = names(&objects).await;
    for name in before.iter().filter(|name| name.starts_with("index/")) {
        use object_store::ObjectStoreExt;
        objects.delete(&name.as_str().into()).await.unwrap();
    }
    let error = repository.collect(EAGER, &Arc::default(), &Cancel::new()).await.unwrap_err();
    assert!(matches!(error, CollectError::SnapshotIncomplete { .. }), "{error:?}");
    repository.rebuild_index(&Arc::default()).await.unwrap();
    let report = collect(&repository, EAGER).await;
    assert_eq!(report.packs_deleted, 2, "{report:?}");
    assert!(restored(&repository, &kept).await == one.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_shards_become_one() {
    let mut rng = seeded();
    let (objects, repository, _) = place(&mut rng).await;
    for _ in 0..20 {
        back_up(&repository, request(&MemoryDisk::new(disk(&mut rng, 64 * 1024)))).await;
    }
    collect(&repository, EAGER).await;
    let shards = names(&objects).await.iter().filter(|name| name.starts_with("index/")).count();
    assert_eq!(shards, 1);
    assert!(sound(&reopened(Store::new(objects)).await).await);
}

/// What is stored before the backup that will be interrupted.
struct Before {
    objects: Arc<InMemory>,
    /// Of the host that collects.
    cache: tempfile::TempDir,
    repository: Repository,
    old: Snapshot,
    /// Copied, not sealed: keeps the old backup's packs.
    draft: Draft,
}

/// How a collection comes in the way of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InTheWay {
    /// The old backup is forgotten and collected while ours is under way.
    Collect(CollectSettings),
    /// Its packs were condemned before ours began, and what kept them ends while ours is under way.
    LetGo,
}

async fn before(disk: &MemoryDisk, remembers: bool) -> Before {
    let (objects, cache) = (Arc::new(InMemory::new()), tempfile::tempdir().unwrap());
    new_repository(Store::new(objects.clone())).await;
    let folder = remembers.then(|| cache.path());
    let repository = opened_with(Store::new(objects.clone()), folder).await;
    let old = back_up(&repository, request(disk)).await;
    let draft = copy(&repository, request(disk)).await;
    collect(&repository, EAGER).await;
    Before { objects, cache, repository, old, draft }
}

/// One backup with one interruption before its write number `at`. Returns whether it came to that write.
async fn interrupted(
    disk: &MemoryDisk,
    changed: &MemoryDisk,
    way: InTheWay,
    remembers: bool,
    at: usize,
) -> bool {
    let Before { objects, cache: _cache, repository, old, draft } = before(disk, remembers).await;
    if way == InTheWay::LetGo {
        repository.forget(old.id).await.unwrap();
        assert!(collect(&repository, EAGER).await.packs_waiting > 0);
    }
    let (other, old_id) = (repository.clone(), old.id);
    let interruption: fake_store::Interruption = Box::new(move || {
        let (repository, draft) = (other.clone(), draft.clone());
        Box::pin(async move {
            match way {
                InTheWay::Collect(settings) => {
                    repository.forget(old_id).await.unwrap();
                    repository.discard(&draft).await.unwrap();
                    collect(&repository, settings).await;
                }
                InTheWay::LetGo => {
                    repository.discard(&draft).await.unwrap();
                    collect(&repository, EAGER).await;
                }
            }
        })
    });
    let store = Arc::new(FakeStore::faulty(&objects, at, fake_store::Fault::Interrupt(interruption)));
    let ours = reopened(Store::new(store.clone())).await;
    let parent = (way != InTheWay::LetGo).then_some(old.id);
    let request = BackupRequest { parent, ..request(changed) };
    let outcome = ours.backup(request, &Arc::default(), &Cancel::new()).await;
    let reached = store.has_failed();
    match &outcome {
        Ok(snapshot) => assert!(restored(&repository, snapshot).await == changed.bytes, "{way:?} at {at}"),
        Err(error) => {
            // Only a backup whose lease expired, or whose parent was forgotten, may fail.
            let excused = matches!(
                error,
                BackupError::Seal(SealBackupError::DraftExpired)
                    | BackupError::Copy(CopyDisksError::Parent(_) | CopyDisksError::LeaseExpired)
            );
            assert!(excused, "{way:?} at {at}: {error:?}");
            assert!(at == 0 || way == InTheWay::Collect(RUTHLESS), "{way:?} at {at}: {error:?}");
        }
    }
    for _ in 0..2 {
        collect(&repository, EAGER).await;
    }
    assert!(sound(&repository).await, "{way:?} at {at}");
    if let Ok(snapshot) = outcome {
        assert!(restored(&repository, &snapshot).await == changed.bytes, "{way:?} at {at}");
    }
    reached
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_at_any_moment_of_a_backup_does_it_no_harm() {
    let mut rng = seeded();
    let disk = MemoryDisk::tracked(disk(&mut rng, 9 * MIB));
    let mut changed = disk.clone();
    changed.write(5 * MIB, b"something else");
    let ways = [InTheWay::Collect(EAGER), InTheWay::Collect(RUTHLESS), InTheWay::LetGo];
    for (way, remembers) in ways.into_iter().flat_map(|way| [(way, false), (way, true)]) {
        let mut at = 0;
        while interrupted(&disk, &changed, way, remembers, at).await {
            at += 1;
        }
        assert!(at >= 6, "the backup was interrupted at each of its writes: {at}");
    }
}

/// What each worker of the storm does in a round.
const OPERATIONS: usize = 30;
/// Repositories that go through a storm.
const ROUNDS: usize = 4;

/// One worker of the storm: does random things to a shared repository, each in a process of its own.
async fn live(
    objects: Arc<dyn ObjectStore>,
    cache: Option<Arc<tempfile::TempDir>>,
    seed: u64,
    disks: Arc<Vec<MemoryDisk>>,
) {
    let mut rng = StdRng::seed_from_u64(seed);
    let cache = cache.as_ref().map(|cache| cache.path());
    let mut repository = opened_with(Store::new(objects.clone()), cache).await;
    let mut drafts: Vec<Draft> = Vec::new();
    for _ in 0..OPERATIONS {
        match rng.random_range(0..10) {
            0 => repository = opened_with(Store::new(objects.clone()), cache).await,
            1..=2 => {
                let snapshots = repository.snapshots().await.unwrap_or_default();
                let parent = match snapshots.len() {
                    0 => None,
                    some => Some(snapshots[rng.random_range(0..some)].id),
                };
                let disk = &disks[rng.random_range(0..disks.len())];
                let request = BackupRequest { parent, ..request(disk) };
                // A parent that is forgotten meanwhile, or an expired lease, is expected.
                if let Ok(draft) = repository.copy(request, &Arc::default(), &Cancel::new()).await {
                    drafts.push(draft);
                }
            }
            3 | 4 if !drafts.is_empty() => {
                let draft = drafts.swap_remove(rng.random_range(0..drafts.len()));
                let id = SnapshotId::generate();
                for _ in 0..rng.random_range(1..3) {
                    match repository.seal(&draft, id).await {
                        Ok(_) | Err(SealBackupError::DraftExpired | SealBackupError::IdTaken { .. }) => {}
                        Err(SealBackupError::DraftCheckFailed(_)) => {}
                        Err(error) => panic!("{error:?}"),
                    }
                }
            }
            5 | 6 => {
                let snapshots = repository.snapshots().await.unwrap_or_default();
                if !snapshots.is_empty() {
                    repository.forget(snapshots[rng.random_range(0..snapshots.len())].id).await.unwrap();
                }
            }
            _ => {
                let settings = if rng.random_bool(0.2) { RUTHLESS } else { EAGER };
                match repository.collect(settings, &Arc::default(), &Cancel::new()).await {
                    Ok(_) | Err(CollectError::SnapshotIncomplete { .. } | CollectError::Index(_)) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_is_interleaved_no_sealed_backup_loses_a_chunk() {
    let mut rng = seeded();
    for round in 0..ROUNDS {
        let disks: Arc<Vec<_>> = {
            let base = disk(&mut rng, 2 * MIB);
            let mut disks = vec![MemoryDisk::new(base)];
            for _ in 0..2 {
                let mut changed = MemoryDisk::new(disks[disks.len() - 1].bytes.clone());
                use_for_a_day(&mut rng, &mut changed);
                disks.push(changed);
            }
            Arc::new(disks)
        };
        let objects = Arc::new(InMemory::new());
        new_repository(Store::new(objects.clone())).await;
        // Two processes of one host with a cache, one of another, and one of a host without.
        let (one, other) = (Arc::new(tempfile::tempdir().unwrap()), Arc::new(tempfile::tempdir().unwrap()));
        let workers: Vec<_> = [Some(one.clone()), Some(one), Some(other), None]
            .into_iter()
            .map(|cache| {
                let slow = Arc::new(FakeStore::slow(objects.clone(), rng.random()));
                tokio::spawn(live(slow, cache, rng.random(), disks.clone()))
            })
            .collect();
        for worker in workers {
            worker.await.unwrap();
        }
        let repository = reopened(Store::new(objects.clone())).await;
        assert!(sound(&repository).await, "round {round}");
        for snapshot in repository.snapshots().await.unwrap() {
            let bytes = restored(&repository, &snapshot).await;
            assert!(disks.iter().any(|disk| disk.bytes == bytes), "round {round}");
        }
    }
}
