//! Byte streams, disks of many pages, dirty bitmaps that lie, and stores that do.

use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_repository::source::{Change, Extent, ExtentKind};
use backup_repository::*;
use bytes::Bytes;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::*;

fn stream(bytes: &[u8]) -> BackupRequest {
    let bytes = std::io::Cursor::new(bytes.to_vec());
    BackupRequest {
        disks: Vec::new(),
        streams: vec![("dump".into(), Box::new(bytes))],
        ..request(&MemoryDisk::new(Vec::new()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_stored_once_whatever_is_inserted_into_it_and_counts_as_needed() {
    let mut rng = seeded();
    let repository = new_repository(memory()).await;
    let mut bytes = vec![0; 40 * MIB];
    rng.fill_bytes(&mut bytes);
    let first = back_up(&repository, stream(&bytes)).await;
    let [record] = &first.contents.disks[..] else { panic!("one record") };
    assert_eq!((record.kind, record.size_bytes), (RecordKind::Stream, bytes.len() as u64));
    let inserted = [&bytes[..9 * MIB], b"something", &bytes[9 * MIB..]].concat();
    let second = back_up(&repository, stream(&inserted)).await;
    assert!(second.contents.stats.new_bytes < 8 * MIB as u64, "{:?}", second.contents.stats);
    for (snapshot, whole) in [(&first, &bytes), (&second, &inserted)] {
        let size = whole.len() as u64;
        for range in [0..size, 12_345_678..size - 1, 7..7, size - 5..size] {
            let mut out = Vec::new();
            let (progress, cancel) = (Arc::default(), Cancel::new());
            let written =
                repository.restore_stream(snapshot, "dump", range.clone(), &mut out, &progress, &cancel);
            written.await.unwrap();
            assert!(out == whole[range.start as usize..range.end as usize], "{range:?}");
        }
    }
    let not_a_disk = repository.open_disk(&first, "dump").await;
    assert!(matches!(not_a_disk, Err(RestoreError::NotADisk { .. })));
    let empty = back_up(&repository, stream(&[])).await;
    assert_eq!(empty.contents.disks[0].size_bytes, 0);
    let settings = CollectSettings { pack_age_min: std::time::Duration::ZERO, ..CollectSettings::default() };
    repository.forget(first.id).await.unwrap();
    repository.collect(settings, &Arc::default(), &Cancel::new()).await.unwrap();
    let report = repository.verify(VerifyScope::Everything, &Arc::default(), &Cancel::new()).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
}

/// A disk of which a little of every segment is used.
struct ManySegments {
    segments: u64,
    /// What is in it follows from this.
    version: u64,
    /// What its map says of all of it.
    change: Change,
}

const SEGMENT: u64 = 4 * MIB as u64;
const USED: u64 = 4096;

#[async_trait]
impl DiskSource for ManySegments {
    fn size_bytes(&self) -> u64 {
        self.segments * SEGMENT
    }

    async fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        let extent = |length, kind| Extent { length, kind, change: self.change };
        let segment = [extent(USED, ExtentKind::Data), extent(SEGMENT - USED, ExtentKind::Zero)];
        Ok(segment.repeat(((range.end - range.start) / SEGMENT) as usize))
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        let mut bytes = vec![0; length];
        StdRng::seed_from_u64(offset ^ self.version).fill_bytes(&mut bytes);
        Ok(Bytes::from(bytes))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_of_many_pages_is_stored_by_one_worker_without_a_deadlock() {
    let store = memory();
    new_repository(store.clone()).await;
    let settings = EngineSettings { workers: NonZero::<usize>::MIN, ..EngineSettings::default() };
    let repository = Repository::open(store, secret(), settings).await.unwrap();
    let disk = Box::new(ManySegments { segments: 2 * 1024 + 100, version: 0, change: Change::Unknown });
    let request =
        BackupRequest { disks: vec![("vda".into(), disk)], ..request(&MemoryDisk::new(Vec::new())) };
    let snapshot = tokio::time::timeout(Duration::from_secs(120), back_up(&repository, request));
    let snapshot = snapshot.await.expect("it does not stand still");
    assert_eq!(snapshot.contents.stats.segments_read, 2 * 1024 + 100);
    assert_eq!(snapshot.contents.disks[0].used_bytes, (2 * 1024 + 100) * USED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_dirty_bitmap_is_detected_and_the_disk_is_read_whole() {
    let mut rng = seeded();
    let store = memory();
    new_repository(store.clone()).await;
    let settings =
        EngineSettings { dirty_bitmap_check: DirtyBitmapCheck::Everything, ..EngineSettings::default() };
    let repository = Repository::open(store, secret(), settings).await.unwrap();
    let mut disk = MemoryDisk::tracked(disk(&mut rng, 17 * MIB));
    // A segment of zeros is not audited.
    (0..17).step_by(4).for_each(|mib| disk.bytes[mib * MIB] = 1);
    let first = back_up(&repository, request(&disk)).await;
    disk.write(3 * MIB, b"on the map");
    // Behind the map's back.
    disk.bytes[9 * MIB] ^= 1;
    let parent = Some(first.id);
    let second = back_up(&repository, BackupRequest { parent, ..request(&disk) }).await;
    assert_eq!(second.contents.stats.dirty_bitmaps_rejected, 1);
    assert!(restored(&repository, &second).await == disk.bytes);
    let parent = Some(second.id);
    let honest = MemoryDisk::tracked(disk.bytes.clone());
    let third = back_up(&repository, BackupRequest { parent, ..request(&honest) }).await;
    assert_eq!(
        (third.contents.stats.dirty_bitmaps_rejected, third.contents.stats.unchanged_segments_checked),
        (0, 5)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_that_hides_that_a_disk_was_exchanged_is_found_out_by_a_sample() {
    let repository = new_repository(memory()).await;
    let backed_up = async |version, change, parent| {
        let disk = Box::new(ManySegments { segments: 1500, version, change });
        let disks: Vec<(String, Box<dyn DiskSource>)> = vec![("vda".into(), disk)];
        let request = BackupRequest { disks, parent, ..request(&MemoryDisk::new(Vec::new())) };
        back_up(&repository, request).await
    };
    let first = backed_up(0, Change::Unknown, None).await;
    let honest = backed_up(0, Change::Clean, Some(first.id)).await.contents;
    assert_eq!(
        (honest.stats.dirty_bitmaps_rejected, honest.stats.segments_reused),
        (0, 1500),
        "{:?}",
        honest.stats
    );
    // One in 64 is compared: that none of 1500 is drawn happens once in ten thousand million times.
    assert!((1..200).contains(&honest.stats.unchanged_segments_checked), "{:?}", honest.stats);
    let exchanged = backed_up(1 << 40, Change::Clean, Some(first.id)).await.contents;
    assert_eq!(exchanged.stats.dirty_bitmaps_rejected, 1, "{:?}", exchanged.stats);
    assert_ne!(exchanged.disks[0].root, first.contents.disks[0].root);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_confirms_what_it_does_not_keep_is_found_out_before_the_backup_is_sealed() {
    let mut rng = seeded();
    let disk = MemoryDisk::new(disk(&mut rng, 3 * MIB));
    for folder in ["data/", "meta/"] {
        let objects = Arc::new(InMemory::new());
        new_repository(Store::new(objects.clone())).await;
        let forgetful = fake_store::FakeStore::faulty(&objects, 0, fake_store::Fault::Forget(folder));
        let repository = reopened(Store::new(Arc::new(forgetful))).await;
        let outcome = repository.backup(request(&disk), &Arc::default(), &Cancel::new()).await;
        assert!(
            matches!(outcome, Err(BackupError::Copy(CopyDisksError::UploadedPackLost { .. }))),
            "{outcome:?}"
        );
        assert!(repository.snapshots().await.unwrap().is_empty());
    }
}
