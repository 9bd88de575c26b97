//! How fast the engine is: a 4 GiB disk with 512 MiB in use, backed up to a folder and restored from it.
//!
//! Prints a table of wall time, processor time and bytes. The disk is made of words (compressible), noise and
//! repetitions, from a fixed seed, so that two runs compare.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod disk;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_repository::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use disk::{DISK_BYTES, MIB, USED_BYTES, change_disk, make_disk};

/// Processor time of this process so far, in the kernel's ticks of 10 ms.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    Duration::from_millis(fields.map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
}

/// The most memory that this process ever had, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

async fn timed<T>(name: &str, work: impl AsyncFnOnce(&Arc<Progress>) -> T) -> T {
    let progress = Arc::new(Progress::new());
    let (wall, processor) = (Instant::now(), processor_time());
    let outcome = work(&progress).await;
    let (wall, processor) = (wall.elapsed().as_secs_f64(), (processor_time() - processor).as_secs_f64());
    let seen = progress.read();
    println!(
        "{name:<34} {wall:>8.2} {processor:>8.2} {:>10} {:>10} {:>10}",
        seen.read_bytes / MIB,
        seen.new_bytes / MIB,
        seen.stored_bytes / MIB
    );
    outcome
}

fn request(disk: &Path) -> BackupRequest {
    BackupRequest {
        machine: "bench".into(),
        taken_at_unix_ms: 0,
        tags: Vec::new(),
        disks: vec![("vda".into(), Box::new(RawFile::open(disk).unwrap()))],
        streams: Vec::new(),
        definition: Vec::new(),
        parent: None,
        consistency: Consistency::PoweredOff,
    }
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.raw");
    let mut rng = StdRng::seed_from_u64(1);
    make_disk(&disk, &mut rng);
    let url = format!("file://{}/store", folder.path().display()).parse().unwrap();
    let store = StoreSettings::new(url).open_for_init().unwrap();
    let secret = || Secret::passphrase("bench").unwrap();
    let settings = EngineSettings::default();
    let cancel = Cancel::new();
    let repository =
        Repository::init(store.clone(), secret(), KdfCost::default(), settings.clone()).await.unwrap();

    println!(
        "{:<34} {:>8} {:>8} {:>10} {:>10} {:>10}",
        "", "wall s", "cpu s", "read MiB", "new MiB", "stored MiB"
    );
    timed("first backup", async |progress| {
        repository.backup(request(&disk), progress, &cancel).await.unwrap()
    })
    .await;
    let repository = Repository::open(store, secret(), settings).await.unwrap();
    timed("again, unchanged", async |progress| {
        repository.backup(request(&disk), progress, &cancel).await.unwrap()
    })
    .await;
    change_disk(&disk, &mut rng);
    let snapshot = timed("again, 20 MiB changed, no map", async |progress| {
        repository.backup(request(&disk), progress, &cancel).await.unwrap()
    })
    .await;
    timed("restore", async |progress| {
        let path = folder.path().join("restored.raw");
        repository.restore_disk(&snapshot, "vda", &path, progress, &cancel).await.unwrap();
    })
    .await;
    let restored = folder.path().join("restored.raw");
    timed("restore into it, nothing differs", async |progress| {
        let request = RestoreRequest::new("vda", RestoreTarget::existing(&restored));
        let report = repository.restore(&snapshot, &request, progress, &cancel).await.unwrap();
        assert_eq!(report.written_bytes + report.zeroed_bytes, 0);
    })
    .await;
    timed("restore to qcow2", async |progress| {
        let target = RestoreTarget::NewQcow2 { path: folder.path().join("restored.qcow2") };
        let request = RestoreRequest::new("vda", target);
        repository.restore(&snapshot, &request, progress, &cancel).await.unwrap();
    })
    .await;
    timed("restore to a stream", async |progress| {
        let mut sink = tokio::io::sink();
        let all = 0..DISK_BYTES;
        repository.restore_stream(&snapshot, "vda", all, &mut sink, progress, &cancel).await.unwrap();
    })
    .await;
    let opened = repository.open_disk(&snapshot, "vda").await.unwrap();
    timed("256 KiB reads of the first GiB", async |_| {
        for at in (0..1024 * MIB).step_by(256 * 1024) {
            opened.read_at(at, 256 * 1024).await.unwrap();
        }
    })
    .await;
    timed("4096 reads of 4 KiB in used parts", async |_| {
        let stretches = USED_BYTES / (8 * MIB);
        for _ in 0..4096 {
            let stretch = rng.random_range(0..stretches) * (DISK_BYTES / stretches);
            opened.read_at(stretch + rng.random_range(0..2047) * 4096, 4096).await.unwrap();
        }
    })
    .await;
    timed("verify everything", async |progress| {
        let report = repository.verify(VerifyScope::Everything, progress, &cancel).await.unwrap();
        assert!(report.is_sound(), "{report:?}");
    })
    .await;
    println!("peak memory {} MiB", peak_mib());
}
