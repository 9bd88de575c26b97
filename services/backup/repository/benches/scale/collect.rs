//! What planning a collection costs, of a disk with many segments that was backed up on many days.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use backup_repository::source::{Change, Extent, ExtentKind};
use backup_repository::*;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, RngExt, SeedableRng};

use super::fake_store::{FakeStore, Requests};
use super::{GIB, MIB, back_up, cheap, request, secret};

const DISK_BYTES: u64 = 32 * GIB;
const SEGMENT_BYTES: u64 = 4 * MIB;
/// Of each segment so much is used, so that there are many segments and little to store.
const USED_BYTES: u64 = 8 * 1024;
const DAYS: usize = 200;
const SEGMENTS_CHANGED_A_DAY: usize = 10;

/// A disk with a dirty bitmap. What a segment holds follows from its number and how often it was changed.
#[derive(Clone)]
struct Daily {
    changed: Vec<u64>,
    dirty: Vec<bool>,
}

impl Daily {
    fn a_day_later(&mut self, rng: &mut StdRng) {
        self.dirty.fill(false);
        for _ in 0..SEGMENTS_CHANGED_A_DAY {
            let segment = rng.random_range(0..self.changed.len());
            self.changed[segment] += 1;
            self.dirty[segment] = true;
        }
    }
}

#[async_trait]
impl DiskSource for Daily {
    fn size_bytes(&self) -> u64 {
        DISK_BYTES
    }

    async fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        let mut extents = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let (segment, within) = (at / SEGMENT_BYTES, at % SEGMENT_BYTES);
            let (kind, end) = match within < USED_BYTES {
                true => (ExtentKind::Data, segment * SEGMENT_BYTES + USED_BYTES),
                false => (ExtentKind::Zero, (segment + 1) * SEGMENT_BYTES),
            };
            let length = end.min(range.end) - at;
            let change = if self.dirty[segment as usize] { Change::Dirty } else { Change::Clean };
            extents.push(Extent { length, kind, change });
            at += length;
        }
        Ok(extents)
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        let segment = offset / SEGMENT_BYTES;
        let mut bytes = vec![0; SEGMENT_BYTES as usize];
        let seed = self.changed[segment as usize] << 32 | segment;
        StdRng::seed_from_u64(seed).fill_bytes(&mut bytes[..USED_BYTES as usize]);
        let start = (offset % SEGMENT_BYTES) as usize;
        Ok(Bytes::from(bytes).slice(start..start + length))
    }
}

async fn plan(objects: &Arc<FakeStore>, cache: Option<&Path>, which: &str) {
    let settings = EngineSettings { cache: cache.map(Path::to_owned), ..EngineSettings::default() };
    let repository = Repository::open(Store::new(objects.clone()), secret(), settings).await.unwrap();
    let before = objects.requests();
    let began = Instant::now();
    let report = repository.plan_collection(CollectSettings::default(), &Arc::default()).await.unwrap();
    let took = began.elapsed().as_secs_f64();
    let Requests { writes, others, .. } = objects.requests() - before;
    println!("{which}: {took:.3} s, {} requests; {} packs", writes + others, report.packs);
}

/// Plans by a host that has never collected, by the same again, and again after one more day.
pub(crate) async fn collections() {
    let objects = Arc::new(FakeStore::counting(Arc::default()));
    let store = Store::new(objects.clone());
    let repository = Repository::init(store, secret(), cheap(), EngineSettings::default()).await.unwrap();
    let segments = (DISK_BYTES / SEGMENT_BYTES) as usize;
    let mut disk = Daily { changed: vec![0; segments], dirty: vec![true; segments] };
    let mut rng = StdRng::seed_from_u64(1);
    let (mut parent, mut day) = (None, 0);
    let mut another_day = async || {
        let request = BackupRequest { parent, ..request(Box::new(disk.clone()), "web".into(), day) };
        parent = Some(back_up(&repository, request).await.id);
        disk.a_day_later(&mut rng);
        day += 1;
    };
    for _ in 0..DAYS {
        another_day().await;
    }
    println!("a disk of {segments} segments, {SEGMENTS_CHANGED_A_DAY} changed on each of {DAYS} days");
    let cache = tempfile::tempdir().unwrap();
    plan(&objects, None, "without a folder").await;
    plan(&objects, Some(cache.path()), "first").await;
    plan(&objects, Some(cache.path()), "second").await;
    another_day().await;
    plan(&objects, Some(cache.path()), "after one more day").await;
    let needs = cache.path().join(repository.id().to_string()).join("needs");
    let bytes = std::fs::metadata(needs).map_or(0, |file| file.len());
    println!("the cache of recipes: {} KiB", bytes / 1024);
}
