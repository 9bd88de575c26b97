//! What the repository costs where it is large: a disk of 1 TiB, a hundred thousand snapshots, requests to the store,
//! collections.
//!
//! `-- disk`, `-- snapshots`, `-- collect` or `-- requests` (which prints the memory of the index, too) prints only one of
//! them.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod collect;
#[path = "../../tests/suite/support/fake_store.rs"]
#[expect(dead_code, reason = "a benchmark only counts")]
mod fake_store;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use backup_repository::retention::{Count, Policy, Rules};
use backup_repository::*;
use futures::StreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use fake_store::{FakeStore, Requests};

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;
const SNAPSHOTS: u64 = 100_000;

fn secret() -> Secret {
    Secret::passphrase("bench").unwrap()
}

fn cheap() -> KdfCost {
    KdfCost { memory_kib: 8, passes: 1, lanes: 1 }
}

fn request(disk: Box<dyn DiskSource>, machine: String, taken_at_unix_ms: u64) -> BackupRequest {
    BackupRequest {
        machine,
        taken_at_unix_ms,
        tags: Vec::new(),
        disks: vec![("vda".into(), disk)],
        streams: Vec::new(),
        definition: Vec::new(),
        parent: None,
        consistency: Consistency::PoweredOff,
    }
}

async fn back_up(repository: &Repository, request: BackupRequest) -> Snapshot {
    repository.backup(request, &Arc::default(), &Cancel::new()).await.unwrap()
}

/// The most memory that this process ever had, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// A sparse file with 64 KiB of noise every 64 MiB for each TiB, and a GiB of it in one place.
fn sparse(path: &Path, bytes: u64) -> RawFile {
    let file = File::create(path).unwrap();
    file.set_len(bytes).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let mut noise = vec![0; 64 * 1024];
    for at in (0..bytes).step_by((64 * MIB) as usize) {
        rng.fill_bytes(&mut noise);
        file.write_all_at(&noise, at).unwrap();
    }
    for at in (0..GIB).step_by(noise.len()) {
        rng.fill_bytes(&mut noise);
        file.write_all_at(&noise, GIB + at).unwrap();
    }
    RawFile::open(path).unwrap()
}

async fn disks() {
    let folder = tempfile::tempdir().unwrap();
    for tib in [1, 4] {
        let url = format!("file://{}/store{tib}", folder.path().display()).parse().unwrap();
        let store = StoreSettings::new(url).open_for_init().unwrap();
        let repository = Repository::init(store, secret(), cheap(), EngineSettings::default()).await.unwrap();
        let disk = sparse(&folder.path().join("disk"), tib * 1024 * GIB);
        let began = Instant::now();
        let snapshot = back_up(&repository, request(Box::new(disk), "web".into(), 0)).await;
        println!(
            "a disk of {tib} TiB, {} MiB used: {:.1} s, peak memory so far {} MiB",
            snapshot.contents.disks[0].used_bytes / MIB,
            began.elapsed().as_secs_f64(),
            peak_mib()
        );
    }
}

async fn snapshots() {
    let objects = Arc::new(InMemory::new());
    let store = Store::new(objects.clone());
    let repository = Repository::init(store, secret(), cheap(), EngineSettings::default()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    File::create(&empty).unwrap().set_len(MIB).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64;
    for number in 0..SNAPSHOTS {
        let disk = Box::new(RawFile::open(&empty).unwrap());
        let taken_at = now - (SNAPSHOTS - number) * 60_000;
        back_up(&repository, request(disk, format!("vm{}", number % 50), taken_at)).await;
    }
    let place = folder.path().join("store");
    let mut all = objects.list(None);
    while let Some(listed) = all.next().await {
        let name = listed.unwrap().location;
        let path = place.join(name.as_ref());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, objects.get(&name).await.unwrap().bytes().await.unwrap()).unwrap();
    }
    let store = StoreSettings::new(format!("file://{}", place.display()).parse().unwrap()).open().unwrap();
    let cache = Some(folder.path().join("cache"));
    let policy = Policy::try_from(Rules { keep_daily: Some(Count::All), ..Rules::default() }).unwrap();
    for which in ["first", "second"] {
        let settings = EngineSettings { cache: cache.clone(), ..EngineSettings::default() };
        let repository = Repository::open(store.clone(), secret(), settings).await.unwrap();
        let began = Instant::now();
        repository.snapshot_ids().await.unwrap();
        let named = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let count = repository.snapshots().await.unwrap().len();
        let listed = began.elapsed().as_secs_f64();
        let began = Instant::now();
        let forgotten = repository.plan_to_forget(&policy).await.unwrap().plan.forgotten().count();
        println!(
            "{which} time: names alone {named:.2} s, list of {count} snapshots {listed:.2} s, plan that forgets {forgotten} {:.2} s",
            began.elapsed().as_secs_f64()
        );
    }
    println!("peak memory {} MiB", peak_mib());
}

/// Every backup makes some requests of its own; what one byte more costs is seen from the difference of two sizes.
async fn requests() {
    let mut seen = Vec::new();
    for disk_bytes in [4 * GIB, 64 * GIB] {
        let counting = Arc::new(FakeStore::counting(Arc::default()));
        let store = Store::new(counting.clone());
        let repository = Repository::init(store, secret(), cheap(), EngineSettings::default()).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let disk = dense(&folder.path().join("disk"), disk_bytes / 32);
        let before = counting.requests();
        let snapshot = back_up(&repository, request(Box::new(disk), "web".into(), 0)).await;
        let stored = snapshot.contents.stats.stored_bytes;
        let Requests { writes, others, .. } = counting.requests() - before;
        println!("{} MiB stored: {writes} writes, {others} other requests", stored / MIB);
        seen.push((stored, writes + others));
        let info = repository.info().await.unwrap();
        println!(
            "index of {} blobs: {} KiB of memory, {:.1} MB for a TiB of such chunks",
            info.blobs,
            info.index_memory_bytes / 1024,
            info.index_memory_bytes as f64 / (disk_bytes / 32) as f64 * (1024 * GIB) as f64 / 1e6,
        );
    }
    let ((less, few), (more, many)) = (seen[0], seen[1]);
    println!("{:.0} requests for each TB more", (many - few) as f64 * 1e12 / (more - less) as f64);
}

/// A file full of noise.
fn dense(path: &Path, bytes: u64) -> RawFile {
    let file = File::create(path).unwrap();
    let mut rng = StdRng::seed_from_u64(1);
    let mut noise = vec![0; MIB as usize];
    for at in (0..bytes).step_by(noise.len()) {
        rng.fill_bytes(&mut noise);
        file.write_all_at(&noise, at).unwrap();
    }
    RawFile::open(path).unwrap()
}

#[tokio::main]
async fn main() {
    let which = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let wanted = |name: &str| which.as_deref().is_none_or(|which| which == name);
    if wanted("disk") {
        disks().await;
    }
    if wanted("requests") {
        requests().await;
    }
    if wanted("collect") {
        collect::collections().await;
    }
    if wanted("snapshots") {
        snapshots().await;
    }
}
