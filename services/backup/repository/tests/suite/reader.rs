//! A disk of a snapshot, read at random.

use std::sync::Arc;

use backup_repository::source::{Change, Extent, ExtentKind};
use backup_repository::*;
use futures::StreamExt;
use object_store::memory::InMemory;
use proptest::prelude::*;
use rand::RngExt;

use crate::support::fake_store::FakeStore;
use crate::support::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn any_read_gives_the_bytes_that_were_backed_up(
        bytes in any_disk(),
        reads in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..12),
        cache_bytes_max in 0usize..8 * MIB,
    ) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let repository = new_repository(memory()).await;
            let snapshot = back_up(&repository, request(&MemoryDisk::new(bytes.clone()))).await;
            let settings = restore::ReaderSettings { cache_bytes_max, read_ahead_bytes_max: MIB };
            let disk = repository.open_disk_with(&snapshot, "vda", settings).await.unwrap();
            for (start, end) in reads {
                let (start, end) = (start.index(bytes.len()), end.index(bytes.len() + 1));
                let (start, end) = (start.min(end), start.max(end));
                let read = disk.read_at(start as u64, end - start).await.unwrap();
                prop_assert!(read == bytes[start..end], "{}..{}", start, end);
                check_extents(&bytes, start, &disk.extents(start as u64..end as u64).await.unwrap(), end)?;
            }
            Ok(())
        })?;
    }
}

fn check_extents(bytes: &[u8], start: usize, extents: &[Extent], end: usize) -> Result<(), TestCaseError> {
    let mut at = start;
    for (index, extent) in extents.iter().enumerate() {
        let next = at + extent.length as usize;
        prop_assert!(extent.length > 0 && extent.change == Change::Unknown);
        prop_assert!(index == 0 || extents[index - 1].kind != extent.kind, "neighbours are merged");
        if extent.kind == ExtentKind::Zero {
            prop_assert!(bytes[at..next].iter().all(|&byte| byte == 0));
        }
        at = next;
    }
    prop_assert_eq!(at, end);
    Ok(())
}

/// A disk without holes or repetitions in a store that counts.
async fn counted(bytes: usize) -> (Arc<FakeStore>, Vec<u8>, SnapshotDisk) {
    let objects = Arc::new(FakeStore::counting(Arc::new(InMemory::new())));
    let repository = new_repository(Store::new(objects.clone())).await;
    let mut content = vec![0; bytes];
    rand::Rng::fill_bytes(&mut seeded(), &mut content);
    let snapshot = back_up(&repository, request(&MemoryDisk::new(content.clone()))).await;
    let disk = repository.open_disk(&snapshot, "vda").await.unwrap();
    // The recipe is cached.
    disk.read_at(0, 1).await.unwrap();
    (objects, content, disk)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_want_the_same_chunk_cause_one_request() {
    let (objects, bytes, disk) = counted(8 * MIB).await;
    let before = objects.requests().reads;
    let at = 5 * MIB;
    let reads = (0..64).map(|_| {
        let disk = disk.clone();
        async move { disk.read_at(at as u64, 64).await.unwrap() }
    });
    let read: Vec<_> = futures::stream::iter(reads).buffered(64).collect().await;
    assert!(read.iter().all(|read| read == &bytes[at..at + 64]));
    let requests = objects.requests().reads - before;
    assert!(requests <= 2, "{requests} requests for one chunk or two");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_read_fetches_what_it_touches_and_no_more() {
    let (objects, bytes, disk) = counted(32 * MIB).await;
    let before = objects.requests().read_bytes;
    let mut rng = seeded();
    for _ in 0..20 {
        let at = rng.random_range(0..bytes.len() - 4096);
        assert!(disk.read_at(at as u64, 4096).await.unwrap() == bytes[at..at + 4096]);
    }
    let fetched = objects.requests().read_bytes - before;
    assert!(fetched <= 20 * 2 * 260 * 1024, "{fetched} bytes for 20 small reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_on_and_on_takes_few_long_requests() {
    let (objects, bytes, disk) = counted(48 * MIB).await;
    let before = objects.requests().reads;
    for at in (0..bytes.len()).step_by(64 * 1024) {
        assert!(disk.read_at(at as u64, 64 * 1024).await.unwrap() == bytes[at..at + 64 * 1024]);
    }
    let requests = objects.requests().reads - before;
    assert!(requests <= 80, "{requests} requests for 48 MiB in 768 reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_disk_and_bytes_beyond_the_end_are_refused() {
    let repository = new_repository(memory()).await;
    let snapshot = back_up(&repository, request(&MemoryDisk::new(vec![7; 1000]))).await;
    let unknown = repository.open_disk(&snapshot, "vdz").await.unwrap_err();
    assert!(matches!(unknown, RestoreError::NoSuchDisk { .. }), "{unknown}");
    let disk = repository.open_disk(&snapshot, "vda").await.unwrap();
    assert_eq!(disk.read_at(1000, 0).await.unwrap().len(), 0);
    for (offset, length) in [(1000, 1), (0, 1001), (u64::MAX, 2)] {
        assert!(disk.read_at(offset, length).await.is_err(), "{offset} {length}");
    }
    assert!(disk.extents(0..1001).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_in_the_store_is_an_error_and_never_other_bytes() {
    let objects = Arc::new(InMemory::new());
    let repository = new_repository(Store::new(objects.clone())).await;
    let bytes = disk(&mut seeded(), 6 * MIB);
    let snapshot = back_up(&repository, request(&MemoryDisk::new(bytes))).await;
    let disk = repository.open_disk(&snapshot, "vda").await.unwrap();
    remove_all(&objects, "data").await;
    let lost = disk.read_at(0, 4096).await.unwrap_err();
    assert!(matches!(lost, SourceError::Other { .. }), "{lost}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_of_a_snapshot_can_be_backed_up_again_at_no_cost() {
    let repository = new_repository(memory()).await;
    let bytes = disk(&mut seeded(), 20 * MIB);
    let first = back_up(&repository, request(&MemoryDisk::new(bytes))).await;
    let source = repository.open_disk(&first, "vda").await.unwrap();
    let again = BackupRequest {
        disks: vec![("vda".into(), Box::new(source))],
        ..request(&MemoryDisk::new(Vec::new()))
    };
    let second = back_up(&repository, again).await;
    assert_eq!(first.contents.disks[0].root, second.contents.disks[0].root);
    assert_eq!(second.contents.stats.new_bytes, 0);
}

/// An open disk outlives a collection that moves what it reads: packs that were sparse are written anew elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn an_open_disk_is_read_on_when_its_chunks_have_moved() {
    let objects = Arc::new(InMemory::new());
    let store = Store::new(objects.clone());
    let repository = new_repository(store.clone()).await;
    let bytes = disk(&mut seeded(), 12 * MIB);
    let first = back_up(&repository, request(&MemoryDisk::new(bytes.clone()))).await;
    let opened = repository.open_disk(&first, "vda").await.unwrap();
    // The same chunks again, by a reader without our index.
    let other = Arc::new(InMemory::new());
    copy_all(&objects, &other).await;
    remove_all(&other, "data").await;
    let blind = reopened(Store::new(other.clone())).await;
    back_up(&blind, request(&MemoryDisk::new(bytes.clone()))).await;
    remove_all(&objects, "data").await;
    copy_all(&other, &objects).await;
    assert!(opened.read_at(0, bytes.len()).await.unwrap() == bytes);
}
