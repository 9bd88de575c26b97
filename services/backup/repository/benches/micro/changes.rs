//! What a backup reads and takes where a map says what changed.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use backup_repository::source::{Change, Extent};
use backup_repository::*;
use bytes::Bytes;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::guests;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;
const SEGMENT_BYTES: u64 = 4 * MIB;
const CHANGED_BYTES: u64 = 20 * MIB;

/// A file and the blocks of it that changed.
struct Mapped {
    file: RawFile,
    block_bytes: u64,
    changed: Vec<bool>,
}

impl Mapped {
    /// What differs between two images.
    fn between(before: &Path, after: &Path, block_bytes: u64) -> Mapped {
        let (old, new) = (std::fs::File::open(before).unwrap(), std::fs::File::open(after).unwrap());
        let blocks = new.metadata().unwrap().len().div_ceil(block_bytes);
        let (mut a, mut b) = (vec![0; block_bytes as usize], vec![0; block_bytes as usize]);
        let mut differs = |at: u64| {
            old.read_exact_at(&mut a, at).unwrap();
            new.read_exact_at(&mut b, at).unwrap();
            a != b
        };
        let changed = (0..blocks).map(|block| differs(block * block_bytes)).collect();
        Mapped { file: RawFile::open(after).unwrap(), block_bytes, changed }
    }

    fn changed_bytes(&self) -> u64 {
        self.changed.iter().filter(|changed| **changed).count() as u64 * self.block_bytes
    }

    fn changed_segments(&self) -> usize {
        self.changed
            .chunks((SEGMENT_BYTES / self.block_bytes) as usize)
            .filter(|blocks| blocks.contains(&true))
            .count()
    }
}

#[async_trait]
impl DiskSource for Mapped {
    fn size_bytes(&self) -> u64 {
        self.file.size_bytes()
    }

    async fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        let mut mapped: Vec<Extent> = Vec::new();
        let mut at = range.start;
        for extent in self.file.extents(range).await? {
            let mut left = extent.length;
            while left > 0 {
                let length = left.min(self.block_bytes - at % self.block_bytes);
                let is_changed = self.changed[(at / self.block_bytes) as usize];
                let change = if is_changed { Change::Dirty } else { Change::Clean };
                match mapped.last_mut() {
                    Some(last) if last.kind == extent.kind && last.change == change => last.length += length,
                    _ => mapped.push(Extent { length, change, ..extent }),
                }
                (at, left) = (at + length, left - length);
            }
        }
        Ok(mapped)
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        self.file.read_at(offset, length).await
    }
}

async fn back_up(
    repository: &Repository,
    disk: impl DiskSource + 'static,
    parent: Option<SnapshotId>,
) -> Snapshot {
    let request = BackupRequest {
        machine: "web".into(),
        taken_at_unix_ms: 0,
        tags: Vec::new(),
        disks: vec![("vda".into(), Box::new(disk))],
        streams: Vec::new(),
        definition: Vec::new(),
        parent,
        consistency: Consistency::PoweredOff,
    };
    repository.backup(request, &Arc::default(), &Cancel::new()).await.unwrap()
}

async fn repository(chunker: Chunker) -> Repository {
    let cost = KdfCost { memory_kib: 8, passes: 1, lanes: 1 };
    let secret = Secret::passphrase("bench").unwrap();
    let store = Store::new(Arc::new(InMemory::new()));
    Repository::init_with(store, secret, cost, EngineSettings::default(), chunker).await.unwrap()
}

pub(crate) async fn run() {
    days_of_a_guest(Chunker::FastCdc).await;
    days_of_a_guest(Chunker::AlignedCdc).await;
    sizes().await;
}

/// A guest lives for a day; its map has the blocks that QEMU's has by default.
async fn days_of_a_guest(chunker: Chunker) {
    let folder = tempfile::tempdir().unwrap();
    let guests = guests::make(folder.path());
    for ((_, before), (name, after)) in guests.images.iter().zip(&guests.images[1..]).take(2) {
        let repository = repository(chunker).await;
        let parent = back_up(&repository, RawFile::open(before).unwrap(), None).await;
        let disk = Mapped::between(before, after, 64 * KIB);
        let (changed, segments) = (disk.changed_bytes(), disk.changed_segments());
        let by_map = back_up(&repository, disk, Some(parent.id)).await;
        let whole = back_up(&repository, RawFile::open(after).unwrap(), None).await;
        assert_eq!(by_map.contents.disks[0].root, whole.contents.disks[0].root, "one recipe either way");
        let stats = by_map.contents.stats;
        println!(
            "{name}, {chunker:?}: {:.1} MiB in {segments} segments changed, {:.1} MiB read, {} segments audited: {:.2} bytes read for a changed byte (whole segments: {:.2})",
            changed as f64 / MIB as f64,
            stats.read_bytes as f64 / MIB as f64,
            stats.unchanged_segments_checked,
            stats.read_bytes as f64 / changed as f64,
            (segments as u64 * SEGMENT_BYTES) as f64 / changed as f64,
        );
    }
}

/// The same change on disks of several sizes, a sixteenth of each used.
async fn sizes() {
    let folder = tempfile::tempdir().unwrap();
    for gib in [4, 16, 64] {
        let path = folder.path().join("disk");
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(gib * GIB).unwrap();
        let mut rng = StdRng::seed_from_u64(gib);
        let mut noise = vec![0; MIB as usize];
        for at in (0..gib * GIB).step_by(16 * MIB as usize) {
            rng.fill_bytes(&mut noise);
            file.write_all_at(&noise, at).unwrap();
        }
        let repository = repository(Chunker::FastCdc).await;
        let parent = back_up(&repository, RawFile::open(&path).unwrap(), None).await;
        let mut changed = vec![false; (gib * GIB / (64 * KIB)) as usize];
        for at in (0..CHANGED_BYTES).step_by(MIB as usize) {
            rng.fill_bytes(&mut noise);
            file.write_all_at(&noise, 16 * at).unwrap();
            changed[(16 * at / (64 * KIB)) as usize..][..16].fill(true);
        }
        let disk = Mapped { file: RawFile::open(&path).unwrap(), block_bytes: 64 * KIB, changed };
        let began = Instant::now();
        let snapshot = back_up(&repository, disk, Some(parent.id)).await;
        println!(
            "{gib} GiB, of which 20 MiB changed: {:.3} s, {:.1} MiB read",
            began.elapsed().as_secs_f64(),
            snapshot.contents.stats.read_bytes as f64 / MIB as f64
        );
    }
}
