//! What the tests of this crate share: seeded disks, a source in memory, places to store.

pub(crate) mod fake_store;
pub(crate) mod proxy;
pub(crate) mod python;
pub(crate) mod qemu;
pub(crate) mod s3;
pub(crate) mod s3_versions;

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::digest;
use backup_repository::source::{Change, DiskSource, Extent, ExtentKind};
use backup_repository::*;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::{Strategy, any, prop};
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

pub(crate) const MIB: usize = 1024 * 1024;

/// The granularity of the maps that [`MemoryDisk`] keeps, as QEMU's.
pub(crate) const GRAIN: usize = 64 * 1024;

/// A random generator whose seed is printed, so that a failure can be repeated.
pub(crate) fn seeded() -> StdRng {
    let seed = std::env::var("TEST_SEED")
        .ok()
        .map_or_else(rand::random, |seed| seed.parse().expect("TEST_SEED is a number"));
    println!("TEST_SEED={seed}");
    StdRng::seed_from_u64(seed)
}

/// A disk as guests have them: noise at both ends, between them stretches of noise, of text, of zeros, and
/// repetitions.
pub(crate) fn disk(rng: &mut StdRng, bytes: usize) -> Vec<u8> {
    let mut disk = vec![0; bytes];
    let end = bytes.min(300_000);
    rng.fill_bytes(&mut disk[..end]);
    rng.fill_bytes(&mut disk[bytes - end..]);
    let (mut at, bytes) = (end, bytes - end);
    while at < bytes {
        let length = rng.random_range(1..2 * MIB).min(bytes - at);
        let stretch = at..at + length;
        match rng.random_range(0..4) {
            0 => {}
            1 => rng.fill_bytes(&mut disk[stretch]),
            2 => text(rng, &mut disk[stretch]),
            _ if at > length => {
                let from = rng.random_range(0..at - length);
                disk.copy_within(from..from + length, at);
            }
            _ => rng.fill_bytes(&mut disk[stretch]),
        }
        at += length;
    }
    disk
}

/// Random letters; they compress to about half.
pub(crate) fn text(rng: &mut StdRng, into: &mut [u8]) {
    for byte in into {
        *byte = b"etaoin shrdlu\n"[rng.random_range(0..14)];
    }
}

/// A disk in memory that knows its holes and, since it was made, its changes.
#[derive(Clone)]
pub(crate) struct MemoryDisk {
    pub(crate) bytes: Vec<u8>,
    dirty: Option<Vec<bool>>,
}

impl MemoryDisk {
    /// A disk without a dirty bitmap.
    pub(crate) fn new(bytes: Vec<u8>) -> MemoryDisk {
        MemoryDisk { bytes, dirty: None }
    }

    /// The same bytes with a map in which nothing is changed yet.
    pub(crate) fn tracked(bytes: Vec<u8>) -> MemoryDisk {
        let grains = bytes.len().div_ceil(GRAIN);
        MemoryDisk { bytes, dirty: Some(vec![false; grains]) }
    }

    /// Writes and notes the change.
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        if let Some(dirty) = &mut self.dirty
            && !bytes.is_empty()
        {
            dirty[at / GRAIN..=(at + bytes.len() - 1) / GRAIN].fill(true);
        }
    }

    pub(crate) fn boxed(&self) -> Box<dyn DiskSource> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl DiskSource for MemoryDisk {
    fn size_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    async fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        let mut extents = Vec::new();
        let mut at = range.start as usize;
        while at < range.end as usize {
            let grain = at / GRAIN;
            let end = ((grain + 1) * GRAIN).min(range.end as usize);
            let zero = self.bytes[at..end].iter().all(|&byte| byte == 0);
            extents.push(Extent {
                length: (end - at) as u64,
                kind: if zero { ExtentKind::Zero } else { ExtentKind::Data },
                change: match &self.dirty {
                    None => Change::Unknown,
                    Some(dirty) if dirty[grain] => Change::Dirty,
                    Some(_) => Change::Clean,
                },
            });
            at = end;
        }
        Ok(extents)
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        let offset = offset as usize;
        Ok(Bytes::copy_from_slice(&self.bytes[offset..offset + length]))
    }
}

/// Changes a disk as a day of use would: some writes, some discards.
pub(crate) fn use_for_a_day(rng: &mut StdRng, disk: &mut MemoryDisk) {
    for _ in 0..rng.random_range(0..6) {
        let length = rng.random_range(1..200_000).min(disk.bytes.len());
        let at = rng.random_range(0..=disk.bytes.len() - length);
        let mut bytes = vec![0; length];
        if rng.random_bool(0.7) {
            rng.fill_bytes(&mut bytes);
        }
        disk.write(at, &bytes);
    }
}

/// Writes a master boot record with one partition, from that sector to the end of the disk.
pub(crate) fn partition(disk: &mut [u8], first: u32) {
    let sectors = disk.len() as u32 / 512 - first;
    disk[446..512].fill(0);
    disk[446 + 4] = 0x83;
    disk[446 + 8..446 + 12].copy_from_slice(&first.to_le_bytes());
    disk[446 + 12..446 + 16].copy_from_slice(&sectors.to_le_bytes());
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
}

/// The least cost: tests protect no secrets.
pub(crate) fn cheap() -> KdfCost {
    KdfCost { memory_kib: 8, passes: 1, lanes: 1 }
}

pub(crate) fn secret() -> Secret {
    Secret::passphrase("correct horse").unwrap()
}

pub(crate) fn memory() -> Store {
    Store::new(Arc::new(InMemory::new()))
}

pub(crate) async fn new_repository(store: Store) -> Repository {
    Repository::init(store, secret(), cheap(), EngineSettings::default()).await.unwrap()
}

pub(crate) async fn new_aligned_repository(store: Store) -> Repository {
    let settings = EngineSettings::default();
    Repository::init_with(store, secret(), cheap(), settings, Chunker::AlignedCdc).await.unwrap()
}

pub(crate) async fn reopened(store: Store) -> Repository {
    opened_with(store, None).await
}

/// Opens as a host with a cache folder does, or as one without.
pub(crate) async fn opened_with(store: Store, cache: Option<&std::path::Path>) -> Repository {
    let settings =
        EngineSettings { cache: cache.map(std::path::Path::to_owned), ..EngineSettings::default() };
    Repository::open(store, secret(), settings).await.unwrap()
}

/// A request to back up one disk, `vda`, of machine `web`.
pub(crate) fn request(disk: &MemoryDisk) -> BackupRequest {
    BackupRequest {
        machine: "web".into(),
        taken_at_unix_ms: 1_700_000_000_000,
        tags: vec!["test".into()],
        disks: vec![("vda".into(), disk.boxed())],
        streams: Vec::new(),
        definition: b"<domain/>".to_vec(),
        parent: None,
        consistency: Consistency::Crash,
    }
}

pub(crate) async fn back_up(repository: &Repository, request: BackupRequest) -> Snapshot {
    repository.backup(request, &Arc::default(), &Cancel::new()).await.unwrap()
}

/// Restores `vda` and returns its bytes.
pub(crate) async fn restored(repository: &Repository, snapshot: &Snapshot) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vda.raw");
    repository.restore_disk(snapshot, "vda", &path, &Arc::default(), &Cancel::new()).await.unwrap();
    std::fs::read(path).unwrap()
}

/// Every object in a folder of a store.
pub(crate) async fn names_in(objects: &InMemory, folder: &str) -> Vec<object_store::path::Path> {
    let prefix = object_store::path::Path::from(folder);
    objects.list(Some(&prefix)).map_ok(|meta| meta.location).try_collect().await.unwrap()
}

pub(crate) async fn remove_all(objects: &InMemory, folder: &str) {
    for name in names_in(objects, folder).await {
        objects.delete(&name).await.unwrap();
    }
}

/// Copies every object from one store to another.
pub(crate) async fn copy_all(from: &InMemory, to: &InMemory) {
    let names: Vec<_> = from.list(None).map_ok(|meta| meta.location).try_collect().await.unwrap();
    for name in names {
        let object = from.get(&name).await.unwrap().bytes().await.unwrap();
        to.put(&name, object.into()).await.unwrap();
    }
}

/// Stretches of noise and zeros of any length, and sizes that are a multiple of nothing.
pub(crate) fn any_disk() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((any::<bool>(), 1usize..3 * MIB, any::<u64>()), 1..8).prop_map(|parts| {
        let mut disk = Vec::new();
        for (noisy, length, seed) in parts {
            let mut stretch = vec![0; length];
            if noisy {
                StdRng::seed_from_u64(seed).fill_bytes(&mut stretch);
            }
            disk.extend(stretch);
        }
        disk
    })
}

/// Every file below a folder.
pub(crate) fn files_in(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_in(&path, found) } else { found.push(path) }
    }
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, bytes))
}

/// SHA-256 of a file that may be larger than memory, in hexadecimal.
pub(crate) fn sha256_of_file(path: &std::path::Path) -> String {
    use std::io::Read;
    let mut file = std::fs::File::open(path).unwrap();
    let (mut sum, mut buffer) = (digest::Context::new(&digest::SHA256), vec![0; MIB]);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return hex::encode(sum.finish()),
            bytes => sum.update(&buffer[..bytes]),
        }
    }
}

/// Waits until something is so; when it is not after a minute, the test fails with what was waited for.
pub(crate) async fn eventually(what: &str, so: impl Fn() -> bool) {
    let give_up = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !so() {
        assert!(std::time::Instant::now() < give_up, "did not happen in time: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
