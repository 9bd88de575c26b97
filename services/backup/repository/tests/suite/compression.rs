//! A policy of compression changes what a backup costs, and nothing else.

use std::io::Write;
use std::sync::Arc;

use backup_repository::*;
use object_store::memory::InMemory;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::support::*;

async fn opened(store: Store, compression: &str) -> Repository {
    let compression = compression.parse().unwrap();
    let settings = EngineSettings { compression, ..EngineSettings::default() };
    Repository::open(store, secret(), settings).await.unwrap()
}

/// A disk full of a log, as a compressor finds it: lines that are alike, and nowhere the same.
fn log_disk(rng: &mut StdRng, bytes: usize) -> Vec<u8> {
    const SAID: [&str; 4] = ["accepted", "closed by the other side", "sent the answer", "is not known here"];
    let mut disk = Vec::with_capacity(bytes + 256);
    for line in 0.. {
        let (second, port, said) = (line / 40, rng.random_range(1024..65535), SAID[rng.random_range(0..4)]);
        let (user, session) = (rng.random_range(0..500), rng.random::<u32>());
        writeln!(
            disk,
            "{second:010} web sshd[{session}]: user u{user:03} from 10.88.0.{}:{port} {said}",
            user % 250
        )
        .unwrap();
        if disk.len() >= bytes {
            break;
        }
    }
    disk.truncate(bytes);
    disk
}

#[tokio::test(flavor = "multi_thread")]
async fn a_higher_level_stores_fewer_bytes_of_the_same_chunks_and_gives_the_same_disk_back() {
    let bytes = log_disk(&mut seeded(), 8 * MIB);
    // Each repository cuts in its own way, so it is the same one three times, before anything is in it.
    let empty = Arc::new(InMemory::new());
    new_repository(Store::new(empty.clone())).await;
    let (mut stored, mut roots) = (Vec::new(), Vec::new());
    for compression in ["none", "1", "19"] {
        let objects = Arc::new(InMemory::new());
        copy_all(&empty, &objects).await;
        let repository = opened(Store::new(objects), compression).await;
        let snapshot = back_up(&repository, request(&MemoryDisk::new(bytes.clone()))).await;
        assert!(restored(&repository, &snapshot).await == bytes, "{compression}");
        let BackupStats { new_bytes, stored_bytes, .. } = snapshot.contents.stats;
        println!("{compression}: {stored_bytes} bytes stored for {new_bytes}");
        assert_eq!(stored_bytes < new_bytes, compression != "none");
        stored.push(stored_bytes);
        roots.push(snapshot.contents.disks[0].root);
    }
    assert!(stored.is_sorted_by(|one, next| one > next), "{stored:?}");
    assert!(roots.iter().all(|root| *root == roots[0]), "ids are of contents: {roots:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_blobs_are_found_again_whatever_their_compression() {
    let store = memory();
    let first = new_repository(store.clone()).await;
    let disk = MemoryDisk::new(disk(&mut seeded(), 8 * MIB));
    let snapshot = back_up(&first, request(&disk)).await;
    for compression in ["19", "none", "1"] {
        let again = back_up(&opened(store.clone(), compression).await, request(&disk)).await;
        assert_eq!(
            again.contents.stats.stored_bytes, 0,
            "{compression}: chunks and recipes have the same ids"
        );
        assert_eq!(again.contents.disks[0].root, snapshot.contents.disks[0].root);
    }
}
