//! One read of a machine goes to several repositories.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backup_repository::source::Extent;
use backup_repository::*;
use bytes::Bytes;
use object_store::memory::InMemory;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::fake_store::{FakeStore, Fault};
use crate::support::*;

const ENOUGH: Duration = Duration::from_secs(120);

/// A disk that counts what is read of it.
struct Counted {
    disk: MemoryDisk,
    read: Arc<AtomicU64>,
}

#[async_trait]
impl DiskSource for Counted {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    async fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        self.disk.extents(range).await
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        self.read.fetch_add(length as u64, Ordering::Relaxed);
        self.disk.read_at(offset, length).await
    }
}

/// Noise, and in between a hole that is longer than any reader waits for.
fn holey(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 200 * MIB];
    let mut rng = StdRng::seed_from_u64(seed);
    rng.fill_bytes(&mut bytes[..20 * MIB]);
    rng.fill_bytes(&mut bytes[170 * MIB..]);
    bytes
}

fn both<'a>(one: &'a Repository, other: &'a Repository) -> [Destination<'a>; 2] {
    [one, other].map(|repository| Destination { repository, parent: None, progress: Arc::default() })
}

async fn dump(repository: &Repository, snapshot: &Snapshot) -> Vec<u8> {
    let mut out = Vec::new();
    let length = snapshot.disk("dump").unwrap().size_bytes;
    repository
        .restore_stream(snapshot, "dump", 0..length, &mut out, &Arc::default(), &Cancel::new())
        .await
        .unwrap();
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_read_once_is_whole_in_each_of_two_repositories() {
    let (fast, slow) = (new_repository(memory()).await, Arc::new(InMemory::new()));
    new_repository(Store::new(slow.clone())).await;
    let slow = reopened(Store::new(Arc::new(FakeStore::slow(slow, 3)))).await;
    let bytes = holey(5);
    let read = Arc::new(AtomicU64::new(0));
    let counted = Counted { disk: MemoryDisk::new(bytes.clone()), read: Arc::clone(&read) };
    let mut stream = vec![0; 9 * MIB];
    StdRng::seed_from_u64(6).fill_bytes(&mut stream);
    let request = BackupRequest {
        disks: vec![("vda".into(), Box::new(counted))],
        streams: vec![("dump".into(), Box::new(std::io::Cursor::new(stream.clone())))],
        ..request(&MemoryDisk::new(Vec::new()))
    };
    let (destinations, cancel) = (both(&fast, &slow), Cancel::new());
    let copied = back_up_to_several(request, &destinations, &cancel);
    let drafts = tokio::time::timeout(ENOUGH, copied).await.expect("it ends in time");
    let id = SnapshotId::generate();
    for (repository, draft) in [&fast, &slow].into_iter().zip(drafts) {
        let snapshot = repository.seal(&draft.unwrap(), id).await.unwrap();
        assert!(restored(repository, &snapshot).await == bytes);
        assert!(dump(repository, &snapshot).await == stream);
    }
    let (read, used) = (read.load(Ordering::Relaxed), 50 * MIB as u64);
    assert!(read < used + used / 10, "{read} bytes were read of a disk that has {used}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_breaks_leaves_the_other_to_go_on() {
    for fault in [Fault::Refuse, Fault::Hang] {
        let hangs = matches!(fault, Fault::Hang);
        let objects = Arc::new(InMemory::new());
        new_repository(Store::new(objects.clone())).await;
        // The lease and one pack are stored, then nothing any more.
        let line =
            Store::new(Arc::new(FakeStore::faulty(&objects, 2, fault))).with_deadline(Duration::from_secs(2));
        let (breaking, good) = (reopened(line).await, new_repository(memory()).await);
        let bytes = holey(7);
        let (destinations, cancel) = (both(&breaking, &good), Cancel::new());
        let request = request(&MemoryDisk::new(bytes.clone()));
        let copied = back_up_to_several(request, &destinations, &cancel);
        let drafts = tokio::time::timeout(ENOUGH, copied).await.expect("it ends in time");
        let [broken, draft] = <[_; 2]>::try_from(drafts).unwrap();
        assert!(broken.is_err(), "hangs: {hangs}");
        let snapshot = good.seal(&draft.unwrap().standing_in(), SnapshotId::generate()).await.unwrap();
        assert!(snapshot.contents.stored_as_failover);
        assert!(restored(&good, &snapshot).await == bytes);

        // When the other is reachable again, the backup is copied there, and is no stand-in any more.
        let home = reopened(Store::new(objects)).await;
        let report = good.copy_to(&home, &[snapshot.id], &Arc::default(), &Cancel::new()).await.unwrap();
        assert_eq!(report.copied, [snapshot.id]);
        let at_home = home.snapshot(snapshot.id).await.unwrap();
        assert!(!at_home.contents.stored_as_failover && restored(&home, &at_home).await == bytes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_breaks_fails_every_destination_with_its_error() {
    let (one, other) = (new_repository(memory()).await, new_repository(memory()).await);
    let destinations = both(&one, &other);
    let broken: Box<dyn tokio::io::AsyncRead + Send + Sync + Unpin> = Box::new(breaking_stream());
    let request = BackupRequest {
        disks: Vec::new(),
        streams: vec![("dump".into(), broken)],
        ..request(&MemoryDisk::new(Vec::new()))
    };
    for outcome in back_up_to_several(request, &destinations, &Cancel::new()).await {
        assert!(matches!(outcome, Err(CopyDisksError::Stream { .. })), "{outcome:?}");
    }
}

/// A stream that gives some bytes and then an error.
fn breaking_stream() -> impl tokio::io::AsyncRead + Send + Sync + Unpin {
    struct Broken(usize);
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            if self.0 == 0 {
                return std::task::Poll::Ready(Err(std::io::Error::other("the dump failed")));
            }
            let length = buffer.remaining().min(self.0);
            buffer.put_slice(&vec![7; length]);
            self.0 -= length;
            std::task::Poll::Ready(Ok(()))
        }
    }
    Broken(3 * MIB)
}
