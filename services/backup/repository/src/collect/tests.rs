//! The cache of needs returns what was added, or nothing.

use std::fs;
use std::sync::Arc;

use proptest::prelude::*;

use super::needs::{OutgoingReferences, ReferencedBlob};
use super::needs_cache::{PackReferencesCache, PackReferencesCacheUpdate};
use crate::ids::{PackId, RepositoryId};
use crate::index::Cache;
use crate::keys::{KdfCost, KeyRoster, Keys, Secret};

fn other_keys() -> Keys {
    let secret = Secret::passphrase("words").expect("a passphrase");
    let cheap = KdfCost { memory_kib: 8, passes: 1, lanes: 1 };
    KeyRoster::first(RepositoryId::generate(), "first".into(), secret, cheap, 0).expect("made").1
}

fn pack(number: u8) -> PackId {
    PackId::from([number; 16])
}

fn target() -> impl Strategy<Value = ReferencedBlob> {
    (0..5u8, any::<u32>(), any::<u32>()).prop_map(|(number, slot, encrypted_bytes)| ReferencedBlob {
        pack: pack(number),
        slot,
        encrypted_bytes,
    })
}

type Said = Vec<(u32, Vec<ReferencedBlob>)>;

fn notes(said: &Said) -> OutgoingReferences {
    let mut notes = OutgoingReferences::default();
    said.iter().for_each(|(slot, targets)| notes.add(*slot, targets.iter().copied()));
    notes
}

fn says(notes: &OutgoingReferences, said: &Said) -> bool {
    said.iter().all(|(slot, targets)| notes.of(*slot).is_some_and(|noted| noted.eq(targets.iter().copied())))
}

proptest! {
    #[test]
    fn needs_are_decoded_as_they_were_encoded(
        said in prop::collection::btree_map(any::<u32>(), prop::collection::vec(target(), 0..20), 0..20),
        damage in any::<(prop::sample::Index, u8)>(),
    ) {
        let said: Said = said.into_iter().collect();
        let earlier: Said = said.iter().map(|(slot, _)| (*slot, Vec::new())).collect();
        let mut all = notes(&earlier);
        all.add_all(&notes(&said));
        let mut text = all.encode();
        prop_assert!(says(&OutgoingReferences::decode(&text).expect("whole"), &said));
        prop_assert!(OutgoingReferences::decode(&text[..text.len() - 1]).is_err());
        // Whatever else is in there, it does no harm.
        let at = damage.0.index(text.len());
        text[at] = damage.1;
        if let Ok(notes) = OutgoingReferences::decode(&text) {
            for (slot, _) in &said {
                let _ = notes.of(*slot).map(Iterator::count);
            }
        }
    }
}

/// A folder in which something was noted of two packs.
fn noted() -> (tempfile::TempDir, Cache, [(PackId, Said); 2]) {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = Cache::open(Some(folder.path()), RepositoryId::known()).expect("made");
    let said = [1, 2].map(|number| {
        let target = |slot| ReferencedBlob { pack: pack(number + 2), slot, encrypted_bytes: 1000 + slot };
        (pack(number), (0..50).map(|slot| (slot, (slot..slot + 9).map(target).collect())).collect::<Said>())
    });
    let mut new_needs =
        PackReferencesCacheUpdate::new(Arc::new(PackReferencesCache::open(&cache, &Keys::known())));
    for (pack, said) in &said {
        new_needs.visit(*pack);
        let (first, second) = said.split_at(20);
        new_needs.add(*pack, &notes(&first.to_vec()));
        new_needs.add(*pack, &notes(&second.to_vec()));
    }
    new_needs.keep();
    (folder, cache, said)
}

#[test]
fn needs_are_cached_of_packs_that_are_visited_and_of_no_others() {
    let (_folder, cache, [(one, of_one), (other, of_other)]) = noted();
    let needs_cache = Arc::new(PackReferencesCache::open(&cache, &Keys::known()));
    assert!(says(&needs_cache.notes(&one), &of_one) && says(&needs_cache.notes(&other), &of_other));
    let mut new_needs = PackReferencesCacheUpdate::new(needs_cache);
    new_needs.visit(one);
    new_needs.keep();
    let needs_cache = PackReferencesCache::open(&cache, &Keys::known());
    assert!(says(&needs_cache.notes(&one), &of_one) && needs_cache.notes(&other).is_empty());
}

#[test]
fn without_a_folder_needs_are_cached_as_long_as_the_process_lives() {
    let cache = Cache::open(None, RepositoryId::known()).expect("none");
    let mut new_needs =
        PackReferencesCacheUpdate::new(Arc::new(PackReferencesCache::open(&cache, &Keys::known())));
    let said = vec![(7, vec![ReferencedBlob { pack: pack(3), slot: 1, encrypted_bytes: 2 }])];
    new_needs.visit(pack(1));
    new_needs.add(pack(1), &notes(&said));
    assert!(says(&new_needs.keep().notes(&pack(1)), &said));
    assert!(PackReferencesCache::open(&cache, &Keys::known()).notes(&pack(1)).is_empty());
}

#[test]
fn a_cache_that_was_damaged_cut_or_replaced_returns_true_entries_or_none() {
    let (folder, cache, said) = noted();
    let path = folder.path().join(RepositoryId::known().to_string()).join("needs");
    let whole = fs::read(&path).expect("written");
    let cached = |keys: &Keys| {
        let needs_cache = PackReferencesCache::open(&cache, keys);
        let count = |(pack, said): &(PackId, Said)| {
            let notes = needs_cache.notes(pack);
            assert!(notes.is_empty() || says(&notes, said));
            usize::from(!notes.is_empty())
        };
        said.iter().map(count).sum::<usize>()
    };
    assert_eq!(cached(&Keys::known()), 2);
    assert_eq!(cached(&other_keys()), 0, "it is of another repository");
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x80;
        fs::write(&path, &damaged).expect("written");
        assert!(cached(&Keys::known()) < 2, "byte {at} was changed");
        fs::write(&path, &whole[..at]).expect("written");
        assert!(cached(&Keys::known()) < 2, "it was cut at {at}");
    }
    // The block of one pack under the name of the other.
    let swapped: Vec<u8> = whole.iter().map(|byte| if *byte == 1 { 2 } else { *byte }).collect();
    fs::write(&path, swapped).expect("written");
    assert!(cached(&Keys::known()) < 2);
}
