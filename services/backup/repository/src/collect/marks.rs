//! What is needed of each pack: a bit for every blob, so that memory stays small whatever the repository's size.

use std::collections::HashMap;

use crate::format::pack::ENTRY_BYTES;
use crate::ids::PackId;

/// What the snapshots need, at one moment.
#[derive(Default)]
pub(super) struct LiveBlobs {
    packs: HashMap<PackId, Marked>,
}

/// What is needed of one pack.
#[derive(Default)]
struct Marked {
    /// One bit for each slot.
    slots: Vec<u64>,
    live_bytes: u64,
}

impl LiveBlobs {
    /// Marks the blob in a slot; true where it was not marked before.
    pub(super) fn add(&mut self, pack: PackId, slot: u32, encrypted_bytes: u32) -> bool {
        let marked = self.packs.entry(pack).or_default();
        let (word, bit) = ((slot / 64) as usize, 1 << (slot % 64));
        if word >= marked.slots.len() {
            marked.slots.resize(word + 1, 0);
        }
        let is_new = marked.slots[word] & bit == 0;
        if is_new {
            marked.slots[word] |= bit;
            marked.live_bytes += u64::from(encrypted_bytes) + ENTRY_BYTES as u64;
        }
        is_new
    }

    pub(super) fn needs(&self, pack: &PackId) -> bool {
        self.packs.contains_key(pack)
    }

    /// Bytes that are needed of a pack: of its blobs, and of their entries in its directory.
    pub(super) fn live_bytes(&self, pack: &PackId) -> u64 {
        self.packs.get(pack).map_or(0, |marked| marked.live_bytes)
    }

    /// Whether the copy of a blob in this very place is needed.
    pub(super) fn is_marked(&self, pack: &PackId, slot: u32) -> bool {
        let word = self.packs.get(pack).and_then(|marked| marked.slots.get((slot / 64) as usize));
        word.is_some_and(|word| word & (1 << (slot % 64)) != 0)
    }
}
