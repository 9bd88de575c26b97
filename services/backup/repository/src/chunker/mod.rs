//! Cutting a segment into holes and chunks.
//!
//! Promises: the cut depends on the segment's bytes, the repository's parameters and keys, and the disk's phase, and on
//! nothing else; pieces joined give the segment back.
//!
//! ```text
//!   segment   |ddddddd|0000000000000|dddddddddddddddddd|      zero runs of 64 KiB or more, on a 4 KiB grid
//!   pieces    |c | c  |    hole     | c |  c   |c |  c |      the chunker restarts in each data stretch
//!
//!   chunker   FastCDC           at any byte             parameters.rs
//!             aligned           on a grid of 4 KiB      aligned.rs; where the grid begins: phase.rs
//! ```
//!
//! It does not know where a segment comes from nor what the pieces are used for.

pub(crate) mod aligned;
mod parameters;
pub(crate) mod phase;

use std::ops::Range;
use std::sync::Arc;

use self::aligned::CutPointSelector;
pub use self::parameters::Chunker;
pub(crate) use self::parameters::{Chunking, StreamChunking};
use crate::keys::Keys;

/// The grid of zero runs: the block size of nearly every guest file system.
pub(crate) const BLOCK_BYTES: usize = 4096;

/// One piece of a segment, as a range of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PieceRange {
    Hole(Range<usize>),
    Chunk(Range<usize>),
}

/// Cuts the segments of one disk. Deterministic; cheap to clone.
#[derive(Clone)]
pub(crate) struct DiskChunker {
    chunking: Chunking,
    rule: Rule,
}

#[derive(Clone)]
enum Rule {
    FastCdc { seed: u64 },
    Aligned { selector: Arc<CutPointSelector>, phase: usize },
}

impl DiskChunker {
    /// `phase` is where on the disk the grid begins, see [`phase`]; it counts only if cuts are aligned.
    pub(crate) fn new(chunking: Chunking, keys: &Keys, phase: u32) -> DiskChunker {
        let rule = match chunking.chunker() {
            Chunker::FastCdc => Rule::FastCdc { seed: keys.chunker_seed() },
            Chunker::AlignedCdc => Rule::Aligned {
                selector: Arc::new(CutPointSelector::new(&keys.aligned_chunker())),
                phase: phase as usize % BLOCK_BYTES,
            },
        };
        DiskChunker { chunking, rule }
    }

    /// The parameters it cuts with.
    pub(crate) fn chunking(&self) -> &Chunking {
        &self.chunking
    }

    /// Cuts one segment.
    pub(crate) fn cut(&self, segment: &[u8]) -> Vec<PieceRange> {
        self.cut_part(segment, 0..segment.len())
    }

    /// Cuts a part of a segment as if nothing lay around it. The pieces are ranges of the segment.
    pub(crate) fn cut_part(&self, segment: &[u8], part: Range<usize>) -> Vec<PieceRange> {
        let mut cuts = Vec::new();
        let stretches = stretches(segment, part, self.chunking.hole_bytes_min as usize);
        match &self.rule {
            Rule::FastCdc { seed } => {
                let mut chunker = self.chunking.fastcdc(*seed);
                cut_stretches(stretches, &mut cuts, |range| {
                    chunker.rechunk(&segment[range]).map(|chunk| chunk.offset + chunk.length).collect()
                });
            }
            Rule::Aligned { selector, phase } => cut_stretches(stretches, &mut cuts, |range| {
                let behind_a_line = (range.start + BLOCK_BYTES - phase) % BLOCK_BYTES;
                selector.ends(&self.chunking, behind_a_line, &segment[range])
            }),
        }
        cuts
    }
}

/// Cuts stretches of data where `ends` says, counted from the beginning of each.
fn cut_stretches(
    stretches: Vec<PieceRange>,
    cuts: &mut Vec<PieceRange>,
    mut ends: impl FnMut(Range<usize>) -> Vec<usize>,
) {
    for stretch in stretches {
        match stretch {
            PieceRange::Hole(_) => cuts.push(stretch),
            PieceRange::Chunk(range) => {
                let mut start = range.start;
                for end in ends(range.clone()) {
                    let end = range.start + end;
                    cuts.push(PieceRange::Chunk(std::mem::replace(&mut start, end)..end));
                }
            }
        }
    }
}

/// Splits a part of a segment into holes and stretches of data.
fn stretches(segment: &[u8], part: Range<usize>, hole_bytes_min: usize) -> Vec<PieceRange> {
    let mut found = Vec::new();
    let mut data_start = part.start;
    let mut zero_start = None;
    let close =
        |zero_start: Option<usize>, end: usize, data_start: &mut usize, found: &mut Vec<PieceRange>| {
            if let Some(start) = zero_start
                && end - start >= hole_bytes_min
            {
                if *data_start < start {
                    found.push(PieceRange::Chunk(*data_start..start));
                }
                found.push(PieceRange::Hole(start..end));
                *data_start = end;
            }
        };
    for block in blocks(part.clone()) {
        let at = block.start;
        if is_zero(&segment[block]) {
            zero_start.get_or_insert(at);
        } else {
            close(zero_start.take(), at, &mut data_start, &mut found);
        }
    }
    // A segment of zeros is a hole whatever its length: the last segment of a disk may be short.
    if zero_start == Some(0) && part == (0..segment.len()) {
        return vec![PieceRange::Hole(part)];
    }
    close(zero_start, part.end, &mut data_start, &mut found);
    if data_start < part.end {
        found.push(PieceRange::Chunk(data_start..part.end));
    }
    found
}

/// The blocks of the grid in a part of a segment; the first and the last may be cut off.
pub(crate) fn blocks(part: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let mut start = part.start;
    std::iter::from_fn(move || {
        let end = ((start / BLOCK_BYTES + 1) * BLOCK_BYTES).min(part.end);
        let block = std::mem::replace(&mut start, end)..end;
        (!block.is_empty()).then_some(block)
    })
}

/// Whether all bytes are zero; compares machine words, so that it runs at the speed of memory.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|word| word == &[0; 64]) && rest.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn bytes_of(cut: &PieceRange) -> Range<usize> {
        match cut {
            PieceRange::Hole(range) | PieceRange::Chunk(range) => range.clone(),
        }
    }

    /// Stretches of noise and zeros, some on the grid and some not.
    fn segment() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec((any::<bool>(), 1usize..200_000, any::<u64>()), 1..8).prop_map(|parts| {
            let mut segment = Vec::new();
            for (noisy, length, seed) in parts {
                let mut noise = vec![0; length];
                if noisy {
                    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut noise);
                }
                segment.extend(noise);
            }
            segment
        })
    }

    fn chunkers() -> impl Strategy<Value = (Chunker, u32)> {
        let aligned = (Just(Chunker::AlignedCdc), prop_oneof![Just(0), Just(512), Just(3584)]);
        prop_oneof![Just((Chunker::FastCdc, 0)), aligned]
    }

    proptest! {
        #[test]
        fn pieces_joined_cover_the_segment_and_holes_hold_only_zeros(segment in segment(), (chunker, phase) in chunkers()) {
            let cutter = DiskChunker::new(chunker.into(), &Keys::known(), phase);
            let cuts = cutter.cut(&segment);
            let mut at = 0;
            for piece in &cuts {
                let range = bytes_of(piece);
                prop_assert_eq!(range.start, at);
                prop_assert!(range.end > range.start);
                if let PieceRange::Hole(_) = piece {
                    prop_assert!(is_zero(&segment[range.clone()]));
                } else {
                    prop_assert!(range.len() <= 256 * 1024);
                }
                at = range.end;
            }
            prop_assert_eq!(at, segment.len());
            prop_assert_eq!(cuts, cutter.cut(&segment));
        }
    }

    fn golden() -> Vec<u8> {
        let mut segment = vec![0; 1024 * 1024];
        blake3::Hasher::new().update(b"golden").finalize_xof().fill(&mut segment);
        segment
    }

    #[test]
    fn cut_points_never_change() {
        let mut segment = golden();
        segment[500_000..700_000].fill(0);
        let cutter = DiskChunker { chunking: Chunking::default(), rule: Rule::FastCdc { seed: 0x5eed } };
        let ends: Vec<_> = cutter.cut(&segment).iter().map(|piece| bytes_of(piece).end).collect();
        assert_eq!(ends, GOLDEN_ENDS);
    }

    /// As cut by `fastcdc` 5.0.0. A change here silently ends deduplication with everything stored before.
    const GOLDEN_ENDS: &[usize] = &[
        39_420, 97_421, 124_159, 217_741, 275_555, 347_307, 365_313, 437_206, 503_808, 696_320, 790_630,
        882_092, 949_173, 1_045_601, 1_048_576,
    ];

    /// What an aligned chunker makes of the same data at another place is the same, but for the first chunks.
    #[test]
    fn data_that_moved_by_blocks_is_cut_where_it_was() {
        for (phase, moved_by) in [(0, 4096), (0, 5 * 4096), (3584, 3584), (3584, 4096 + 3584)] {
            let cutter = |phase| DiskChunker::new(Chunker::AlignedCdc.into(), &Keys::known(), phase);
            let ends = |cutter: DiskChunker, segment: &[u8]| -> HashSet<usize> {
                cutter.cut(segment).iter().map(|piece| bytes_of(piece).end).collect()
            };
            let before = ends(cutter(0), &golden());
            let after = ends(cutter(phase), &[vec![1; moved_by], golden()].concat());
            let found = before.iter().filter(|end| after.contains(&(**end + moved_by))).count();
            assert!(before.len() > 10 && found + 3 >= before.len(), "{found} of {}", before.len());
        }
    }

    #[test]
    fn aligned_cuts_are_on_the_grid_and_as_long_as_they_should_be() {
        let mut segment = vec![0; 64 << 20];
        blake3::Hasher::new().update(b"long").finalize_xof().fill(&mut segment);
        let cuts = DiskChunker::new(Chunker::AlignedCdc.into(), &Keys::known(), 512).cut(&segment);
        let (last, all) = cuts.split_last().unwrap();
        assert!(all.iter().all(|cut| bytes_of(cut).end % BLOCK_BYTES == 512));
        assert!(all.iter().all(|cut| (16 * 1024 - 3584..=256 * 1024).contains(&bytes_of(cut).len())));
        assert_eq!(bytes_of(last).end, segment.len());
        let mean = segment.len() / cuts.len();
        assert!((56 * 1024..80 * 1024).contains(&mean), "{mean}");
    }

    #[test]
    fn blocks_that_are_all_the_same_are_cut_within_the_greatest_length() {
        for byte in 1..50 {
            let cuts =
                DiskChunker::new(Chunker::AlignedCdc.into(), &Keys::known(), 3584).cut(&vec![byte; 1 << 20]);
            assert!(cuts.iter().all(|cut| bytes_of(cut).len() <= 256 * 1024), "{byte}: {cuts:?}");
        }
    }
}
