//! How fast what need not be stored goes by.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use backup_repository::source::{Change, Extent, ExtentKind};
use backup_repository::{
    BackupRequest, Cancel, Chunker, Consistency, DiskSource, EngineSettings, KdfCost, Progress, RawFile,
    Repository, Secret, SourceError, StoreSettings,
};
use bytes::Bytes;
use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::cpu_seconds;
use crate::disk::{MIB, USED_BYTES, make_disk};

const ZERO_BYTES: u64 = 8192 * MIB;
const HOLE_BYTES: u64 = 1024 * 1024 * MIB;

pub(crate) async fn run() {
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.raw");
    make_disk(&disk, &mut StdRng::seed_from_u64(1));
    let image = || -> Box<dyn DiskSource> { Box::new(RawFile::open(Path::new(&disk)).unwrap()) };
    let fastcdc = repository(&folder.path().join("fastcdc"), Chunker::FastCdc).await;
    let aligned = repository(&folder.path().join("aligned"), Chunker::AlignedCdc).await;
    println!("\nGB/s of one core, user and system, for what the repository has or need not have");
    for (repository, name) in [(&fastcdc, "known data, from a file"), (&aligned, "the same, cuts aligned")] {
        back_up(repository, image()).await;
        measured(repository, name, USED_BYTES, image).await;
    }
    measured(&fastcdc, "zeros that are read", ZERO_BYTES, || Box::new(Zeros(ExtentKind::Data))).await;
    measured(&fastcdc, "holes, of 1 TiB", HOLE_BYTES, || Box::new(Zeros(ExtentKind::Zero))).await;
}

async fn repository(folder: &Path, chunker: Chunker) -> Repository {
    let url = format!("file://{}", folder.display()).parse().unwrap();
    let store = StoreSettings::new(url).open_for_init().unwrap();
    let settings = EngineSettings { workers: std::num::NonZero::<usize>::MIN, ..EngineSettings::default() };
    let secret = Secret::passphrase("bench").unwrap();
    Repository::init_with(store, secret, KdfCost::default(), settings, chunker).await.unwrap()
}

async fn measured(repository: &Repository, name: &str, bytes: u64, source: impl Fn() -> Box<dyn DiskSource>) {
    let mut speeds = Vec::new();
    for _ in 0..3 {
        let begun = cpu_seconds();
        back_up(repository, source()).await;
        speeds.push(bytes as f64 / 1e9 / (cpu_seconds() - begun));
    }
    speeds.sort_by(f64::total_cmp);
    println!("{name:<26} {:>10.2}", speeds[1]);
}

async fn back_up(repository: &Repository, source: Box<dyn DiskSource>) {
    let request = BackupRequest {
        machine: "bench".into(),
        taken_at_unix_ms: 0,
        tags: Vec::new(),
        disks: vec![("vda".into(), source)],
        streams: Vec::new(),
        definition: Vec::new(),
        parent: None,
        consistency: Consistency::PoweredOff,
    };
    repository.backup(request, &Arc::new(Progress::new()), &Cancel::new()).await.unwrap();
}

/// A disk of zeros that costs nothing to read, known as zeros or not.
struct Zeros(ExtentKind);

#[async_trait]
impl DiskSource for Zeros {
    fn size_bytes(&self) -> u64 {
        if self.0 == ExtentKind::Data { ZERO_BYTES } else { HOLE_BYTES }
    }

    async fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        Ok(vec![Extent { length: range.end - range.start, kind: self.0, change: Change::Unknown }])
    }

    async fn read_at(&self, _offset: u64, length: usize) -> Result<Bytes, SourceError> {
        const ZEROS: &[u8] = &[0; 4 * MIB as usize];
        Ok(if length <= ZEROS.len() {
            Bytes::from_static(&ZEROS[..length])
        } else {
            Bytes::from(vec![0; length])
        })
    }
}
