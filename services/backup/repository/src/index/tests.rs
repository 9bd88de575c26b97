//! The index finds what is stored, and nothing else, in little memory.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use super::handles::{HANDLES_MAX, Handles};
use super::rows::{self, ShardRows};
use super::*;
use crate::format::pack::{Directory, PackKind};
use crate::ids::{BlobKind, RepositoryId};
use crate::keys::{Cipher, KdfCost, KeyRoster, Keys, Secret};
use crate::random::random;
use crate::restore::ReadError;
use crate::restore::plan::{self, BlobPositions, BlobRef, WantedBlob};

fn keys() -> Keys {
    let secret = Secret::passphrase("words").expect("a passphrase");
    let cheap = KdfCost { memory_kib: 8, passes: 1, lanes: 1 };
    KeyRoster::first(RepositoryId::generate(), "first".into(), secret, cheap, 0).expect("made").1
}

pub(super) fn directory(ids: &[BlobId]) -> Directory {
    let head = PackEncryptionInfo {
        id: PackId::generate(),
        kind: PackKind::Data,
        cipher: Cipher::Aes256Gcm,
        epoch: 1,
        ephemeral_public_key: random(),
    };
    let entry = |id: &BlobId| Entry { id: *id, kind: BlobKind::Chunk, encrypted_bytes: 100, raw_bytes: 200 };
    Directory { descriptor: head, entries: ids.iter().map(entry).collect() }
}

fn ids(count: usize) -> Vec<BlobId> {
    (0..count as u64).map(|number| BlobId::from(*blake3::hash(&number.to_le_bytes()).as_bytes())).collect()
}

fn kept(keys: &Keys, directories: &[Directory]) -> ShardRows {
    Cache::open(None, RepositoryId::generate())
        .expect("none")
        .keep(keys, "index/a", directories)
        .expect("kept")
}

#[test]
fn every_blob_of_a_shard_is_found_at_its_location_and_no_other() {
    let (keys, ids) = (keys(), ids(10_000));
    let directories: Vec<_> = ids.chunks(512).map(directory).collect();
    let mut index = Index::default();
    index.adopt(Arc::new(kept(&keys, &directories)));
    for directory in &directories {
        for (slot, offset, entry) in directory.placed() {
            let place = index.find(&entry.id).expect("readable").expect("found");
            assert_eq!(place, Location { pack: directory.descriptor, slot, offset, entry: *entry });
        }
    }
    for _ in 0..10_000 {
        assert_eq!(index.find(&BlobId::from(random::<32>())).expect("readable"), None);
    }
}

#[test]
fn a_blob_in_several_packs_is_found_outside_of_those_that_are_condemned() {
    let (keys, ids) = (keys(), ids(100));
    // Two packs of one shard and a third of another.
    let (first, second, third) = (directory(&ids), directory(&ids), directory(&ids));
    let mut index = Index::default();
    index.adopt(Arc::new(kept(&keys, &[first.clone(), second.clone()])));
    index.adopt(Arc::new(kept(&keys, std::slice::from_ref(&third))));
    for id in &ids {
        let places = index.find_all(id).expect("readable");
        assert_eq!(places.iter().map(|place| place.pack.id).collect::<HashSet<_>>().len(), 3, "three packs");
        let mut condemned = HashSet::from([first.descriptor.id, second.descriptor.id]);
        assert!(index.contains_outside(&condemned, id).expect("readable"));
        condemned.insert(third.descriptor.id);
        assert!(!index.contains_outside(&condemned, id).expect("readable"));
    }
}

#[test]
fn a_recipe_with_a_wrong_length_of_a_chunk_is_detected_before_the_chunk_is_read() {
    let (keys, ids) = (keys(), ids(1));
    let mut index = Index::default();
    index.adopt(Arc::new(kept(&keys, &[directory(&ids)])));
    let planned = |asked| plan::by_pack(&index, BlobPositions::from([(asked, vec![0])]));
    assert_eq!(planned(BlobRef::chunk(ids[0], 200)).expect("its length").len(), 1);
    assert_eq!(planned(BlobRef::recipe(ids[0])).expect("any length").len(), 1);
    for bytes in [0, 199, 201, u32::MAX] {
        let refused = planned(BlobRef::chunk(ids[0], bytes)).map(drop);
        assert!(matches!(refused, Err(ReadError::Damaged(Damage::Malformed { .. }))), "{bytes}");
    }
}

#[test]
fn blobs_that_overlap_in_a_forged_index_are_read_whole() {
    let head = directory(&[]).descriptor;
    let wanted = |offset, encrypted_bytes| {
        let entry = Entry { id: random().into(), kind: BlobKind::Chunk, encrypted_bytes, raw_bytes: 1 };
        WantedBlob { location: Location { pack: head, slot: 0, offset, entry }, positions: Vec::new() }
    };
    let reads = plan::ranges(vec![wanted(0, 1000), wanted(10, 20)]);
    let [read] = &reads[..] else { panic!("they lie beside each other") };
    assert_eq!(read.range, 0..1000);
}

#[test]
fn a_file_that_was_damaged_exchanged_or_cut_is_found_out() {
    let (keys, ids) = (keys(), ids(1000));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rows");
    let encoded = rows::encode(&keys, "index/a", &[directory(&ids)]);
    encoded.write(&mut std::fs::File::create(&path).expect("made")).expect("written");
    let whole = std::fs::read(&path).expect("read");
    let open = |name: &str| {
        let file = std::fs::File::open(&path).expect("there");
        let file = Handles::default().named(file, path.clone()).expect("readable");
        ShardRows::open(&keys, name, file).expect("readable")
    };
    assert!(open("index/a").is_some());
    assert!(open("index/b").is_none(), "it is another shard's");
    for at in (0..whole.len()).step_by(97) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).expect("written");
        let Some(rows) = open("index/a") else { continue };
        let all_found = ids.iter().all(|id| {
            let mut found = false;
            rows.visit(id, &mut |_| found = true).is_ok() && found
        });
        assert!(!all_found, "byte {at} was changed");
    }
    std::fs::write(&path, &whole[..whole.len() - 1]).expect("written");
    assert!(open("index/a").is_none(), "it is cut off");
}

#[test]
fn a_full_shard_takes_less_than_a_byte_and_a_half_of_memory_for_each_blob() {
    let (keys, ids) = (keys(), ids(SHARD_ROWS));
    let directories: Vec<_> = ids.chunks(512).map(directory).collect();
    let rows = kept(&keys, &directories);
    let per_blob = rows.memory_bytes() as f64 / f64::from(rows.len());
    println!("{per_blob:.3} bytes a blob");
    assert!(per_blob < 1.5, "{per_blob}");
}

/// An index of shards with one blob each, in this cache.
fn index_of(keys: &Keys, cache: &Cache, ids: &[BlobId]) -> Index {
    let mut index = Index::default();
    for (number, id) in ids.iter().enumerate() {
        let name = format!("index/{number}");
        let rows = match cache.kept(keys, &name) {
            Some(rows) => rows,
            None => cache.keep(keys, &name, &[directory(&[*id])]).expect("kept"),
        };
        index.adopt(Arc::new(rows));
    }
    index
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("readable").count()
}

#[test]
fn however_many_shards_there_are_few_files_are_open_and_everything_is_found() {
    let (keys, ids, repository) = (keys(), ids(1000), RepositoryId::generate());
    let folder = tempfile::tempdir().expect("a folder");
    // Written, read again by another process, and without a folder.
    for cache in [Some(folder.path()), Some(folder.path()), None] {
        let before = descriptors();
        let cache = Cache::open(cache, repository).expect("made");
        let index = index_of(&keys, &cache, &ids);
        for _ in 0..2 {
            for id in &ids {
                assert!(index.find(id).expect("readable").is_some());
            }
        }
        assert!(cache.open_handles() <= HANDLES_MAX, "{}", cache.open_handles());
        // Other tests of this process may open a few.
        assert!(descriptors() <= before + HANDLES_MAX + 20, "{} of {before} before", descriptors());
        drop(index);
        assert!(cache.open_handles() <= 1, "what nobody reads is closed");
    }
}

#[test]
fn a_reader_finds_the_rows_of_a_shard_that_was_merged_meanwhile() {
    let (keys, ids, repository) = (keys(), ids(HANDLES_MAX * 2), RepositoryId::generate());
    let folder = tempfile::tempdir().expect("a folder");
    let cache = Cache::open(Some(folder.path()), repository).expect("made");
    let index = index_of(&keys, &cache, &ids);
    // Another process has merged all of them, and looks at the folder more than once.
    let other = Cache::open(Some(folder.path()), repository).expect("made");
    for _ in 0..2 {
        other.keep_only(&HashSet::new());
    }
    for id in &ids {
        assert!(index.find(id).expect("readable").is_some());
    }
    assert!(other.kept(&keys, "index/0").is_none(), "a shard that is gone is not found again");
    let files = || std::fs::read_dir(cache.folder().expect("there").join("index")).expect("readable").count();
    other.keep_only_at(SystemTime::now() + Duration::from_hours(47), &HashSet::new());
    assert_eq!(files(), ids.len());
    other.keep_only_at(SystemTime::now() + Duration::from_hours(49), &HashSet::new());
    assert_eq!(files(), 0);
}

#[test]
fn an_index_file_that_a_person_removed_is_known_to_be_away() {
    let (keys, ids, repository) = (keys(), ids(HANDLES_MAX * 2), RepositoryId::generate());
    let folder = tempfile::tempdir().expect("a folder");
    let cache = Cache::open(Some(folder.path()), repository).expect("made");
    let index = index_of(&keys, &cache, &ids);
    assert!(index.shards.iter().all(|shard| shard.is_there()));
    std::fs::remove_dir_all(folder.path().join(repository.to_string())).expect("removed");
    assert!(index.shards.iter().all(|shard| !shard.is_there()), "a refresh reads them again");
    assert!(index.find(&ids[0]).is_err());
}
