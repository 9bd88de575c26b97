//! Properties of recipes: whatever way a disk is read, it is described in the same way.

use std::sync::Arc;

use backup_repository::*;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::support::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_map_of_changes_gives_the_recipe_of_a_full_read(
        seed: u64,
        bytes in 1usize..14 * MIB,
        aligned: bool,
        first_sector in prop_oneof![Just(63), Just(2048)],
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut bytes = disk(&mut rng, bytes);
            let sectors = bytes.len() as u32 / 512;
            if sectors > first_sector {
                partition(&mut bytes, first_sector);
            }
            let mut tracked = MemoryDisk::tracked(bytes);
            let repository =
                if aligned { new_aligned_repository(memory()).await } else { new_repository(memory()).await };
            let first = BackupRequest { disks: request(&tracked).disks, ..request(&tracked) };
            let parent = back_up(&repository, first).await;
            prop_assert!(restored(&repository, &parent).await == tracked.bytes);

            use_for_a_day(&mut rng, &mut tracked);
            let with_map = BackupRequest { parent: Some(parent.id), ..request(&tracked) };
            let by_map = back_up(&repository, with_map).await;
            let whole = back_up(&repository, request(&MemoryDisk::new(tracked.bytes.clone()))).await;
            prop_assert_eq!(&by_map.contents.disks, &whole.contents.disks);
            prop_assert!(restored(&repository, &by_map).await == tracked.bytes);
            prop_assert!(by_map.contents.stats.read_bytes <= whole.contents.stats.read_bytes);
            Ok(())
        })?;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn aligned_cuts_find_the_same_files_in_partitions_of_old_and_of_now() {
    let mut rng = seeded();
    let mut files = vec![0; 12 * MIB];
    rng.fill_bytes(&mut files);
    let disk = |first_sector: u32| {
        let mut bytes = [vec![0; first_sector as usize * 512], files.clone()].concat();
        partition(&mut bytes, first_sector);
        MemoryDisk::new(bytes)
    };
    let (now, of_old) = (disk(2048), disk(63));
    let repository = new_aligned_repository(memory()).await;
    back_up(&repository, request(&now)).await;
    let snapshot = back_up(&repository, request(&of_old)).await;
    assert_eq!(snapshot.disk("vda").unwrap().grid_offset_bytes, 63 % 8 * 512);
    let new_bytes = snapshot.contents.stats.new_bytes;
    // Segments begin at other places of the files; after each beginning it takes some chunks to find them.
    assert!(new_bytes < 3 * MIB as u64, "{new_bytes}");
    assert!(restored(&repository, &snapshot).await == of_old.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_was_partitioned_anew_is_cut_anew_as_a_whole() {
    let mut rng = seeded();
    let mut tracked = MemoryDisk::tracked(disk(&mut rng, 9 * MIB));
    partition(&mut tracked.bytes, 63);
    let repository = new_aligned_repository(memory()).await;
    let parent = back_up(&repository, request(&tracked)).await;
    let mut anew = tracked.bytes.clone();
    partition(&mut anew, 2048);
    tracked.write(0, &anew[..512]);
    let by_map = BackupRequest { parent: Some(parent.id), ..request(&tracked) };
    let by_map = back_up(&repository, by_map).await;
    let whole = back_up(&repository, request(&MemoryDisk::new(tracked.bytes.clone()))).await;
    assert_eq!(by_map.contents.disks, whole.contents.disks);
    assert_eq!(by_map.contents.stats.segments_reused, 0);
    assert!(restored(&repository, &by_map).await == tracked.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_without_a_parent_is_ignored() {
    let mut rng = seeded();
    let tracked = MemoryDisk::tracked(disk(&mut rng, 5 * MIB));
    let repository = new_repository(memory()).await;
    let snapshot = back_up(&repository, request(&tracked)).await;
    assert!(restored(&repository, &snapshot).await == tracked.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_grew_is_read_whole() {
    let mut rng = seeded();
    let small = MemoryDisk::tracked(disk(&mut rng, 5 * MIB));
    let repository = new_repository(memory()).await;
    let parent = back_up(&repository, request(&small)).await;
    let grown = MemoryDisk::tracked([small.bytes.clone(), disk(&mut rng, 4 * MIB)].concat());
    let request = BackupRequest { parent: Some(parent.id), ..request(&grown) };
    let snapshot = back_up(&repository, request).await;
    assert_eq!(snapshot.contents.stats.segments_reused, 0);
    assert!(restored(&repository, &snapshot).await == grown.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_machine_is_backed_up_without_reading() {
    let mut rng = seeded();
    let tracked = MemoryDisk::tracked(disk(&mut rng, 12 * MIB));
    // An audit reads something now and then.
    let engine = EngineSettings { dirty_bitmap_check: DirtyBitmapCheck::Off, ..EngineSettings::default() };
    let repository = Repository::init(memory(), secret(), cheap(), engine).await.unwrap();
    let parent = back_up(&repository, request(&tracked)).await;
    let again = BackupRequest { parent: Some(parent.id), ..request(&tracked) };
    let progress = Arc::new(Progress::new());
    let snapshot = repository.backup(again, &progress, &Cancel::new()).await.unwrap();
    assert_eq!(progress.read().read_bytes, 0);
    assert_eq!(snapshot.contents.disks, parent.contents.disks);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_estimate_is_what_the_backup_stores_and_writes_nothing() {
    let mut rng = seeded();
    let disk = MemoryDisk::new(disk(&mut rng, 9 * MIB));
    let objects = Arc::new(object_store::memory::InMemory::new());
    let repository = new_repository(Store::new(objects.clone())).await;
    let before = names(&objects).await;
    let progress = Arc::default();
    let estimate = repository.estimate(request(&disk), &progress, &Cancel::new()).await.unwrap();
    assert_eq!(names(&objects).await, before);
    let stats = back_up(&repository, request(&disk)).await.contents.stats;
    assert_eq!(estimate, stats);
    let again = repository.estimate(request(&disk), &Arc::default(), &Cancel::new()).await.unwrap();
    assert_eq!((again.new_bytes, again.read_bytes), (0, stats.read_bytes));
}

async fn names(objects: &object_store::memory::InMemory) -> Vec<String> {
    use futures::TryStreamExt;
    use object_store::ObjectStore;
    let mut names: Vec<_> =
        objects.list(None).map_ok(|listed| listed.location.to_string()).try_collect().await.unwrap();
    names.sort();
    names
}
