//! The needs of one pack of recipes: the locations of the blobs that the pieces in it name.
//!
//! ```text
//!   packs 4 | pieces 4 | targets 4 | packs × id 16
//!   pieces × slot 4 | pieces × number of targets 4
//!   targets × pack 4 | targets × slot, less that of the target before 4 | targets × encrypted bytes 4
//! ```
//!
//! Numbers of one kind are stored together and neighbours are similar, so that it compresses well: a backup stores the
//! chunks of a segment in a row.

use std::collections::HashMap;
use std::ops::Range;

use crate::cursor::Cursor;
use crate::damage::Damage;
use crate::ids::PackId;
use crate::index::Location;

/// The location of a blob that a piece names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReferencedBlob {
    pub(super) pack: PackId,
    pub(super) slot: u32,
    pub(super) encrypted_bytes: u32,
}

impl From<&Location> for ReferencedBlob {
    fn from(place: &Location) -> ReferencedBlob {
        ReferencedBlob { pack: place.pack.id, slot: place.slot, encrypted_bytes: place.entry.encrypted_bytes }
    }
}

/// A location, with a number instead of the pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbered {
    pack: u32,
    slot: u32,
    encrypted_bytes: u32,
}

/// What the pieces of one pack name, as far as it is known.
#[derive(Default)]
pub(super) struct OutgoingReferences {
    packs: Vec<PackId>,
    numbers: HashMap<PackId, u32>,
    by_slot: HashMap<u32, Range<usize>>,
    targets: Vec<Numbered>,
}

impl OutgoingReferences {
    /// Adds what the piece in a slot names; it replaces what was added for that slot before.
    pub(super) fn add(&mut self, slot: u32, targets: impl Iterator<Item = ReferencedBlob>) {
        let start = self.targets.len();
        for ReferencedBlob { pack, slot, encrypted_bytes } in targets {
            let number = *self.numbers.entry(pack).or_insert_with(|| {
                self.packs.push(pack);
                (self.packs.len() - 1) as u32
            });
            self.targets.push(Numbered { pack: number, slot, encrypted_bytes });
        }
        self.by_slot.insert(slot, start..self.targets.len());
    }

    /// Adds all of `others`.
    pub(super) fn add_all(&mut self, others: &OutgoingReferences) {
        for slot in others.by_slot.keys() {
            self.add(*slot, others.of(*slot).into_iter().flatten());
        }
    }

    /// What the piece in a slot names.
    pub(super) fn of(&self, slot: u32) -> Option<impl Iterator<Item = ReferencedBlob> + Clone + '_> {
        let range = self.by_slot.get(&slot)?.clone();
        Some(self.targets[range].iter().map(|target| ReferencedBlob {
            pack: self.packs[target.pack as usize],
            slot: target.slot,
            encrypted_bytes: target.encrypted_bytes,
        }))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut slots: Vec<_> = self.by_slot.keys().copied().collect();
        slots.sort_unstable();
        let ranges = || slots.iter().map(|slot| self.by_slot[slot].clone());
        let targets: Vec<_> = ranges().flat_map(|range| &self.targets[range]).collect();
        let mut before = 0u32;
        let steps: Vec<_> = targets
            .iter()
            .map(|target| target.slot.wrapping_sub(std::mem::replace(&mut before, target.slot)))
            .collect();
        let mut out = Vec::new();
        let mut write = |number: u32| out.extend_from_slice(&number.to_le_bytes());
        [self.packs.len(), slots.len(), targets.len()].into_iter().for_each(|count| write(count as u32));
        for word in self.packs.iter().flat_map(|pack| pack.as_bytes().as_chunks::<4>().0) {
            write(u32::from_le_bytes(*word));
        }
        slots.iter().for_each(|slot| write(*slot));
        ranges().for_each(|range| write(range.len() as u32));
        targets.iter().for_each(|target| write(target.pack));
        steps.iter().for_each(|step| write(*step));
        targets.iter().for_each(|target| write(target.encrypted_bytes));
        out
    }

    pub(super) fn decode(text: &[u8]) -> Result<OutgoingReferences, Damage> {
        const WHAT: &str = "list of needs";
        let mut cursor = Cursor::new(text, WHAT);
        let malformed = |why| Damage::Malformed { what: WHAT, why };
        let counts = [cursor.u32()?, cursor.u32()?, cursor.u32()?].map(u64::from);
        let [packs, notes, targets] = counts;
        if 3 * 4 + packs * 16 + notes * 8 + targets * 12 != text.len() as u64 {
            return Err(malformed("it counts more or less than it holds"));
        }
        let packs = (0..packs).map(|_| cursor.array().map(PackId::from)).collect::<Result<Vec<_>, _>>()?;
        let mut column = |rows: u64| (0..rows).map(|_| cursor.u32()).collect::<Result<Vec<_>, _>>();
        let (slots, lengths) = (column(notes)?, column(notes)?);
        let (numbers, steps, sizes) = (column(targets)?, column(targets)?, column(targets)?);
        if numbers.iter().any(|number| *number as usize >= packs.len()) {
            return Err(malformed("it names a pack that it does not list"));
        }
        let mut slot = 0u32;
        let targets: Vec<_> = numbers
            .into_iter()
            .zip(steps)
            .zip(sizes)
            .map(|((pack, step), encrypted_bytes)| {
                slot = slot.wrapping_add(step);
                Numbered { pack, slot, encrypted_bytes }
            })
            .collect();
        let mut by_slot = HashMap::with_capacity(slots.len());
        let mut end = 0;
        for (slot, length) in slots.into_iter().zip(lengths) {
            let start = end;
            end += length as usize;
            by_slot.insert(slot, start..end);
        }
        if end != targets.len() {
            return Err(malformed("its notes do not fill it"));
        }
        let numbers = packs.iter().copied().zip(0..).collect();
        Ok(OutgoingReferences { packs, numbers, by_slot, targets })
    }
}
