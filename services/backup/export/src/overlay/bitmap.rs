//! Which blocks are present. Bits are only ever set.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The map is written in pages of this size.
pub(super) const PAGE_BYTES: usize = 4096;
const PAGE_WORDS: usize = PAGE_BYTES / 8;
const WORD_BITS: u64 = 64;

#[derive(Debug)]
pub(super) struct Bitmap {
    blocks: u64,
    words: Vec<AtomicU64>,
    present: AtomicU64,
    /// Pages with bits that the map does not have yet.
    touched: Vec<AtomicBool>,
}

impl Bitmap {
    pub(super) fn empty(blocks: u64) -> Bitmap {
        let pages = pages(blocks);
        Bitmap {
            blocks,
            words: (0..pages * PAGE_WORDS).map(|_| AtomicU64::new(0)).collect(),
            present: AtomicU64::new(0),
            touched: (0..pages).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// Reads what `take_touched` gave to be written. `None` when bits are set where no blocks are, or bytes missing.
    pub(super) fn from_bytes(blocks: u64, bytes: &[u8]) -> Option<Bitmap> {
        let bitmap = Bitmap::empty(blocks);
        if bytes.len() != bitmap.words.len() * 8 {
            return None;
        }
        let mut present = 0;
        let (words, _) = bytes.as_chunks::<8>();
        for (index, (word, bytes)) in bitmap.words.iter().zip(words).enumerate() {
            let bits = u64::from_le_bytes(*bytes);
            let first = index as u64 * WORD_BITS;
            if bits & !mask(first, &(0..blocks)) != 0 {
                return None;
            }
            present += u64::from(bits.count_ones());
            word.store(bits, Ordering::Relaxed);
        }
        bitmap.present.store(present, Ordering::Release);
        Some(bitmap)
    }

    pub(super) fn blocks(&self) -> u64 {
        self.blocks
    }

    pub(super) fn present(&self) -> u64 {
        self.present.load(Ordering::Acquire)
    }

    pub(super) fn is_set(&self, block: u64) -> bool {
        self.word(block) >> (block % WORD_BITS) & 1 != 0
    }

    /// From `range.start` on, how far all blocks are present, or all are missing; at most to the end of the range.
    pub(super) fn run(&self, range: Range<u64>) -> (bool, u64) {
        let present = self.is_set(range.start);
        let mut at = range.start;
        while at < range.end {
            let word = self.word(at);
            let same = if present { word } else { !word } >> (at % WORD_BITS);
            let length = u64::from(same.trailing_ones());
            at += length;
            // A shifted word ends in zeros, which are no blocks of the other kind.
            if length == 0 || !at.is_multiple_of(WORD_BITS) {
                break;
            }
        }
        (present, at.min(range.end))
    }

    /// Marks these blocks as present.
    pub(super) fn set(&self, range: Range<u64>) {
        let mut at = range.start;
        while at < range.end {
            let index = (at / WORD_BITS) as usize;
            let first = index as u64 * WORD_BITS;
            let bits = mask(first, &range);
            let before = self.words[index].fetch_or(bits, Ordering::AcqRel);
            let new = bits & !before;
            if new != 0 {
                self.present.fetch_add(u64::from(new.count_ones()), Ordering::AcqRel);
                self.touched[index / PAGE_WORDS].store(true, Ordering::Release);
            }
            at = first + WORD_BITS;
        }
    }

    /// The pages that changed since the last call, with their numbers. A bit that is set meanwhile is in one of
    /// them or in one of the next time.
    pub(super) fn take_touched(&self) -> Vec<(usize, Vec<u8>)> {
        let mut pages = Vec::new();
        for (number, touched) in self.touched.iter().enumerate() {
            if touched.swap(false, Ordering::AcqRel) {
                let words = &self.words[number * PAGE_WORDS..][..PAGE_WORDS];
                let bytes = words.iter().flat_map(|word| word.load(Ordering::Acquire).to_le_bytes());
                pages.push((number, bytes.collect()));
            }
        }
        pages
    }

    fn word(&self, block: u64) -> u64 {
        self.words[(block / WORD_BITS) as usize].load(Ordering::Acquire)
    }
}

/// Pages that hold as many bits.
pub(super) fn pages(blocks: u64) -> usize {
    blocks.div_ceil(PAGE_BYTES as u64 * 8) as usize
}

/// The bits of the word that begins with block `first` which lie in the range.
fn mask(first: u64, range: &Range<u64>) -> u64 {
    let from = range.start.clamp(first, first + WORD_BITS) - first;
    let to = range.end.clamp(first, first + WORD_BITS) - first;
    let below = |bit: u64| if bit == WORD_BITS { u64::MAX } else { (1 << bit) - 1 };
    below(to) & !below(from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_remembers_what_was_set_and_finds_every_run(
            blocks in 1..40_000u64,
            sets in proptest::collection::vec((0..40_000u64, 0..300u64), 0..12),
        ) {
            let bitmap = Bitmap::empty(blocks);
            let mut model = vec![false; blocks as usize];
            let mut stored = vec![0; pages(blocks) * PAGE_BYTES];
            for (start, length) in sets {
                let start = start.min(blocks);
                let range = start..(start + length).min(blocks);
                model[range.start as usize..range.end as usize].fill(true);
                bitmap.set(range);
                for (number, page) in bitmap.take_touched() {
                    stored[number * PAGE_BYTES..][..PAGE_BYTES].copy_from_slice(&page);
                }
            }
            prop_assert_eq!(bitmap.present(), model.iter().filter(|set| **set).count() as u64);
            let again = Bitmap::from_bytes(blocks, &stored).unwrap();
            for bitmap in [bitmap, again] {
                let mut at = 0;
                while at < blocks {
                    let (present, end) = bitmap.run(at..blocks);
                    prop_assert!(end > at);
                    prop_assert!(model[at as usize..end as usize].iter().all(|set| *set == present));
                    if end < blocks {
                        prop_assert_ne!(model[end as usize], present);
                    }
                    at = end;
                }
            }
        }
    }

    #[test]
    fn bits_beyond_the_last_block_are_damage() {
        let mut bytes = vec![0; PAGE_BYTES];
        bytes[0] = 0b1000;
        assert!(Bitmap::from_bytes(3, &bytes).is_none());
        assert_eq!(Bitmap::from_bytes(4, &bytes).unwrap().present(), 1);
        assert!(Bitmap::from_bytes(4, &bytes[1..]).is_none());
    }
}
