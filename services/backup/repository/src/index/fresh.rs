//! Rows of packs that this process stored and that no shard names yet.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use super::Location;
use crate::format::blob::{BlobId, BlobKind};
use crate::format::pack::{Directory, Entry, PackHead, PackId};

/// Ids are uniformly random already: their first eight bytes are hash enough.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(word) = bytes.first_chunk() {
            self.0 ^= u64::from_le_bytes(*word);
        }
    }
}

#[derive(Clone, Copy)]
struct Row {
    number: u32,
    pack: u32,
    slot: u32,
    offset: u32,
    sealed_bytes: u32,
    raw_bytes: u32,
    kind: BlobKind,
}

#[derive(Default)]
pub(super) struct Fresh {
    rows: HashMap<BlobId, Row, BuildHasherDefault<IdHasher>>,
    packs: Vec<PackHead>,
}

impl Fresh {
    fn place(&self, id: &BlobId, row: &Row) -> Location {
        let Row { slot, offset, sealed_bytes, raw_bytes, kind, .. } = *row;
        let entry = Entry { id: *id, kind, sealed_bytes, raw_bytes };
        Location { pack: self.packs[row.pack as usize], slot, offset, entry }
    }

    pub(super) fn find(&self, id: &BlobId) -> Option<(u32, Location)> {
        self.rows.get(id).map(|row| (row.number, self.place(id, row)))
    }

    pub(super) fn each(&self, each: &mut dyn FnMut(Location)) {
        self.rows.iter().for_each(|(id, row)| each(self.place(id, row)));
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn packs(&self) -> impl Iterator<Item = &PackHead> {
        self.packs.iter()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.rows.capacity() * (size_of::<(BlobId, Row)>() + 1)
            + self.packs.capacity() * size_of::<PackHead>()
    }

    pub(super) fn add(&mut self, directory: &Directory) {
        let pack = self.packs.len() as u32;
        self.packs.push(directory.head);
        for (slot, offset, entry) in directory.placed() {
            let Entry { id, kind, sealed_bytes, raw_bytes } = *entry;
            let number = self.rows.len() as u32;
            let row = Row { number, pack, slot, offset, sealed_bytes, raw_bytes, kind };
            self.rows.entry(id).or_insert(row);
        }
    }

    /// Forgets what lies in some packs.
    pub(super) fn remove(&mut self, packs: &HashSet<PackId>) {
        let kept = Fresh { packs: self.packs.clone(), rows: std::mem::take(&mut self.rows) };
        *self = Fresh::default();
        let mut numbers = HashMap::new();
        for (id, mut row) in kept.rows {
            let head = kept.packs[row.pack as usize];
            if packs.contains(&head.id) {
                continue;
            }
            row.pack = *numbers.entry(head.id).or_insert_with(|| {
                self.packs.push(head);
                (self.packs.len() - 1) as u32
            });
            row.number = self.rows.len() as u32;
            self.rows.insert(id, row);
        }
    }
}
