//! A collection uses the cache of earlier ones: it costs less and decides the same, whatever happens to the file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_repository::*;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};

use crate::support::fake_store::FakeStore;
use crate::support::*;

/// Rewrites whatever is not wholly needed, so that a decision shows every byte that is thought to be needed.
const EAGER: CollectSettings = CollectSettings {
    pack_age_min: Duration::ZERO,
    lease_timeout: Duration::from_secs(3600),
    rewrite_below_percent: 100,
    rewrite_bytes_max: u64::MAX,
    reencrypt_old_epochs: false,
};
/// Rewrites nothing.
const SAVING: CollectSettings = CollectSettings { rewrite_bytes_max: 0, ..EAGER };

async fn collect(repository: &Repository, settings: CollectSettings) -> CollectReport {
    repository.collect(settings, &Arc::default(), &Cancel::new()).await.unwrap()
}

async fn sound(repository: &Repository) -> bool {
    let report = repository.verify(VerifyScope::Everything, &Arc::default(), &Cancel::new()).await.unwrap();
    if !report.is_sound() {
        println!("{report:#?}");
    }
    report.is_sound()
}

/// A store in memory, a host that backs up and one that collects and has a cache folder.
struct Place {
    objects: Arc<InMemory>,
    repository: Repository,
    cache: tempfile::TempDir,
}

impl Place {
    async fn new() -> Place {
        let objects = Arc::new(InMemory::new());
        let repository = new_repository(Store::new(objects.clone())).await;
        Place { objects, repository, cache: tempfile::tempdir().unwrap() }
    }

    async fn collector(&self) -> Repository {
        opened_with(Store::new(self.objects.clone()), Some(self.cache.path())).await
    }

    fn file(&self, name: &str) -> PathBuf {
        self.cache.path().join(self.repository.id().to_string()).join(name)
    }

    /// What a collection by a host with or without a memory reads from the store: requests and bytes.
    async fn reads(&self, cache: Option<&Path>, settings: CollectSettings) -> (u64, u64) {
        let counting = Arc::new(FakeStore::counting(self.objects.clone()));
        let collector = opened_with(Store::new(counting.clone()), cache).await;
        let before = counting.requests();
        collect(&collector, settings).await;
        let asked = counting.requests() - before;
        (asked.reads, asked.read_bytes)
    }

    /// Backs up many days of a disk.
    async fn days(&self, rng: &mut StdRng, disk: &mut MemoryDisk, days: usize) {
        for _ in 0..days {
            let at = rng.random_range(0..disk.bytes.len() - 1000);
            let mut bytes = vec![0; 1000];
            rng.fill_bytes(&mut bytes);
            disk.write(at, &bytes);
            back_up(&self.repository, request(disk)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_reads_only_what_is_new_since_the_last() {
    let mut rng = seeded();
    let place = Place::new().await;
    let mut disk = MemoryDisk::new(disk(&mut rng, 40 * MIB));
    place.days(&mut rng, &mut disk, 20).await;
    let cache = Some(place.cache.path());
    let first = place.reads(cache, SAVING).await;
    let idle = place.reads(cache, SAVING).await;
    place.days(&mut rng, &mut disk, 1).await;
    let second = place.reads(cache, SAVING).await;
    place.days(&mut rng, &mut disk, 10).await;
    place.reads(cache, SAVING).await;
    let later = place.reads(cache, SAVING).await;
    println!("first {first:?}, idle {idle:?}, after a day {second:?}, idle after ten more {later:?}");
    println!("without a folder {:?}", place.reads(None, SAVING).await);
    assert!(first.0 > 60, "snapshots, shards and recipes: {first:?}");
    // The store's clock, and the config that is probed for.
    assert!(idle.0 <= 2 && idle.1 < 1000, "nothing is new: {idle:?}");
    assert_eq!(idle, later, "however many snapshots there are");
    // A snapshot, a shard, and the root, the page and the leaf that changed.
    assert!(second.0 <= idle.0 + 5 && second.1 < 20_000, "{second:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rewritten_or_merged_into_other_shards_is_read_again_and_nothing_else() {
    let mut rng = seeded();
    let place = Place::new().await;
    let mut disk = MemoryDisk::new(disk(&mut rng, 24 * MIB));
    place.days(&mut rng, &mut disk, 20).await;
    let cache = Some(place.cache.path());
    place.reads(cache, SAVING).await;
    // More than sixteen shards have become one by now: what was noted does not depend on them.
    let after_merging = place.reads(cache, SAVING).await;
    assert!(after_merging.0 <= 2, "{after_merging:?}");
    let snapshots = place.repository.snapshots().await.unwrap();
    for snapshot in &snapshots[1..19] {
        place.repository.forget(snapshot.id).await.unwrap();
    }
    place.reads(cache, EAGER).await;
    place.reads(cache, EAGER).await;
    let idle = place.reads(cache, EAGER).await;
    assert!(idle.0 <= 2, "{idle:?}");
    assert!(sound(&place.repository).await);
}

/// A host, its name, and its cache folder.
type Host = (&'static str, Option<tempfile::TempDir>);

/// What one host would do, opened anew.
async fn plan(objects: &Arc<InMemory>, host: &Host) -> CollectReport {
    let cache = host.1.as_ref().map(tempfile::TempDir::path);
    opened_with(Store::new(objects.clone()), cache)
        .await
        .plan_collection(EAGER, &Arc::default())
        .await
        .unwrap()
}

/// Does one random thing that changes what is needed.
async fn something(
    rng: &mut StdRng,
    repository: &Repository,
    disk: &mut MemoryDisk,
    drafts: &mut Vec<Draft>,
) {
    let snapshots = repository.snapshots().await.unwrap();
    match rng.random_range(0..10) {
        0..=2 => {
            use_for_a_day(rng, disk);
            let parent = snapshots.choose(rng).map(|snapshot| snapshot.id);
            back_up(repository, BackupRequest { parent, ..request(disk) }).await;
        }
        3 => {
            use_for_a_day(rng, disk);
            drafts.push(repository.copy(request(disk), &Arc::default(), &Cancel::new()).await.unwrap());
        }
        4 if !drafts.is_empty() => {
            let draft = drafts.swap_remove(rng.random_range(0..drafts.len()));
            repository.seal(&draft, SnapshotId::generate()).await.unwrap();
        }
        5 if !drafts.is_empty() => repository.discard(&drafts.remove(0)).await.unwrap(),
        6..=7 => {
            if let Some(snapshot) = snapshots.choose(rng) {
                repository.forget(snapshot.id).await.unwrap();
            }
        }
        8 => drop(repository.rebuild_index(&Arc::default()).await.unwrap()),
        _ => drop(collect(repository, EAGER).await),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collection_with_a_cache_decides_as_one_without() {
    let mut rng = seeded();
    for round in 0..4 {
        let objects = Arc::new(InMemory::new());
        new_repository(Store::new(objects.clone())).await;
        let mut disk = MemoryDisk::tracked(disk(&mut rng, 6 * MIB));
        let mut drafts = Vec::new();
        let folder = || Some(tempfile::tempdir().unwrap());
        // One collects after each step, one seldom, and one has no cache.
        let hosts: [Host; 3] = [("often", folder()), ("seldom", folder()), ("never", None)];
        for step in 0..40 {
            let host = hosts.choose(&mut rng).unwrap();
            let cache = host.1.as_ref().map(tempfile::TempDir::path);
            let repository = opened_with(Store::new(objects.clone()), cache).await;
            something(&mut rng, &repository, &mut disk, &mut drafts).await;
            let expected = plan(&objects, &hosts[2]).await;
            assert_eq!(plan(&objects, &hosts[0]).await, expected, "round {round}, step {step}");
            if rng.random_bool(0.2) {
                assert_eq!(plan(&objects, &hosts[1]).await, expected, "round {round}, step {step}");
            }
        }
        let repository = reopened(Store::new(objects.clone())).await;
        assert!(sound(&repository).await, "round {round}");
    }
}

/// Does something bad to a file. `others` are such files of other places and times.
fn damage(rng: &mut StdRng, path: &Path, others: &[Vec<u8>]) {
    let mut bytes = fs::read(path).unwrap_or_default();
    let somewhere = |rng: &mut StdRng, bytes: &[u8]| rng.random_range(0..=bytes.len());
    match rng.random_range(0..8) {
        0 => drop(fs::remove_file(path)),
        1 => bytes.truncate(somewhere(rng, &bytes)),
        2 => bytes.extend(std::iter::repeat_n(7, rng.random_range(0..200))),
        3 => bytes = others.choose(rng).cloned().unwrap_or_default(),
        // A part of another file, where some part of this one was.
        4 => {
            let other = others.choose(rng).cloned().unwrap_or_default();
            let (here, there) = (somewhere(rng, &bytes), somewhere(rng, &other));
            bytes.truncate(here);
            bytes.extend(&other[there..]);
        }
        // Lengths and counts that are too large.
        5 if bytes.len() > 100 => {
            let at = rng.random_range(0..100);
            bytes[at..at + 4].fill(255);
        }
        _ => {
            for _ in 0..rng.random_range(1..10) {
                let at = somewhere(rng, &bytes);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << rng.random_range(0..8);
                }
            }
        }
    }
    if path.exists() {
        fs::write(path, bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_that_is_damaged_old_or_of_another_repository_loses_nothing() {
    let mut rng = seeded();
    let (place, elsewhere) = (Place::new().await, Place::new().await);
    let mut disk = MemoryDisk::new(disk(&mut rng, 6 * MIB));
    elsewhere.days(&mut rng, &mut disk, 3).await;
    collect(&elsewhere.collector().await, EAGER).await;
    let mut others: [(&str, Vec<Vec<u8>>); 2] =
        ["needs", "snapshots"].map(|name| (name, vec![fs::read(elsewhere.file(name)).unwrap()]));
    let mut kept = Vec::new();
    for _ in 0..40 {
        use_for_a_day(&mut rng, &mut disk);
        kept.push((back_up(&place.repository, request(&disk)).await, disk.bytes.clone()));
        if kept.len() > 3 {
            let (forgotten, _) = kept.swap_remove(rng.random_range(0..kept.len()));
            place.repository.forget(forgotten.id).await.unwrap();
        }
        collect(&place.collector().await, EAGER).await;
        assert!(sound(&place.repository).await);
        for (name, others) in &mut others {
            let path = place.file(name);
            others.push(fs::read(&path).unwrap());
            if rng.random_bool(0.7) {
                damage(&mut rng, &path, others);
            }
        }
    }
    for (snapshot, bytes) in &kept {
        assert!(restored(&place.repository, snapshot).await == *bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_sealed_under_the_id_of_one_that_was_taken_back_is_not_mistaken_for_it() {
    let mut rng = seeded();
    let place = Place::new().await;
    let id = SnapshotId::generate();
    let disks = [disk(&mut rng, MIB), disk(&mut rng, MIB)].map(MemoryDisk::new);
    for disk in &disks {
        let draft = place.repository.copy(request(disk), &Arc::default(), &Cancel::new()).await.unwrap();
        let snapshot = place.repository.seal(&draft, id).await.unwrap();
        for _ in 0..2 {
            collect(&place.collector().await, EAGER).await;
        }
        assert!(sound(&place.repository).await);
        assert!(restored(&place.repository, &snapshot).await == disk.bytes);
        assert_eq!(place.collector().await.snapshots().await.unwrap(), [snapshot]);
        place.repository.forget(id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_does_not_grow_for_ever() {
    let mut rng = seeded();
    let place = Place::new().await;
    let mut sizes = Vec::new();
    for _ in 0..12 {
        let snapshot = back_up(&place.repository, request(&MemoryDisk::new(disk(&mut rng, 6 * MIB)))).await;
        collect(&place.collector().await, EAGER).await;
        sizes.push(fs::metadata(place.file("needs")).unwrap().len());
        place.repository.forget(snapshot.id).await.unwrap();
    }
    println!("{sizes:?}");
    assert!(sizes[11] < 3 * sizes[0], "{sizes:?}");
    let left = |name: &str| fs::read_dir(place.file(name)).unwrap().count();
    assert!(left("") <= 5, "files that are not needed are removed");
}
