//! A policy of compression changes what a backup costs, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use backup_repository::*;

use self::support::*;

fn at(compression: &str) -> EngineSettings {
    EngineSettings { compression: compression.parse().unwrap(), ..EngineSettings::default() }
}

async fn opened(store: &Store, compression: &str) -> Repository {
    Repository::open(store.clone(), secret(), at(compression)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_higher_level_stores_fewer_bytes_and_gives_the_same_disk_back() {
    let bytes = disk(&mut seeded(), 16 * MIB);
    let mut stored = Vec::new();
    for compression in ["none", "1", "19"] {
        let repository = Repository::init(memory(), secret(), cheap(), at(compression)).await.unwrap();
        let snapshot = back_up(&repository, request(&MemoryDisk::new(bytes.clone()))).await;
        assert!(restored(&repository, &snapshot).await == bytes, "{compression}");
        let CopyStats { new_bytes, stored_bytes, .. } = snapshot.contents.stats;
        println!("{compression}: {stored_bytes} bytes stored for {new_bytes}");
        assert_eq!(stored_bytes < new_bytes, compression != "none");
        stored.push(stored_bytes);
    }
    assert!(stored.is_sorted_by(|one, next| one > next), "{stored:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_known_again_whatever_it_is_compressed_with() {
    let store = memory();
    let first = new_repository(store.clone()).await;
    let disk = MemoryDisk::new(disk(&mut seeded(), 8 * MIB));
    let snapshot = back_up(&first, request(&disk)).await;
    for compression in ["19", "none", "1"] {
        let again = back_up(&opened(&store, compression).await, request(&disk)).await;
        assert_eq!(
            again.contents.stats.stored_bytes, 0,
            "{compression}: chunks and recipes have the same ids"
        );
        assert_eq!(again.contents.disks[0].root, snapshot.contents.disks[0].root);
    }
}
