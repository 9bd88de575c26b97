//! Cutting a segment into holes and chunks.
//!
//! Promises: the cut depends on the segment's bytes, the repository's parameters and its seed, and on nothing
//! else; pieces joined give the segment back.
//!
//! ```text
//!   segment   |ddddddd|0000000000000|dddddddddddddddddd|      zero runs of 64 KiB or more, on a 4 KiB grid
//!   pieces    |c | c  |    hole     | c |  c   |c |  c |      FastCDC starts afresh in each data stretch
//! ```
//!
//! It does not know where a segment comes from nor what becomes of the pieces.

use std::ops::Range;

use fastcdc::v2020::{FastCDC, Normalization};
use serde::{Deserialize, Serialize};

use crate::format::blob::BLOB_BYTES_MAX;

/// The grid on which zero runs are looked for: the block size of nearly every guest file system.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// Limits of the chunker crate, which checks them in debug builds only.
const CHUNK_BYTES_MIN_LEAST: u32 = 64;
const CHUNK_BYTES_MAX_MOST: u32 = 1024 * 1024;
/// A segment buffer is the unit of memory and of reading.
const SEGMENT_BYTES_MOST: u32 = 64 * 1024 * 1024;

/// The parameters of a repository that decide where disks are cut. Stored at `init`, equal for all writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chunking {
    algorithm: Algorithm,
    pub(crate) segment_bytes: u32,
    chunk_bytes_min: u32,
    chunk_bytes_avg: u32,
    chunk_bytes_max: u32,
    /// Zero runs shorter than this stay inside chunks.
    pub(crate) hole_bytes_min: u32,
}

/// The parameters that decide where byte streams are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamChunking {
    algorithm: Algorithm,
    chunk_bytes_min: u32,
    chunk_bytes_avg: u32,
    chunk_bytes_max: u32,
}

/// Cut points are part of the format: another chunker or version is another word here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Algorithm {
    /// FastCDC of 2020 with normalisation level 1, as cut by `fastcdc` 5.0.0.
    FastCdc2020Level1,
}

impl Default for Chunking {
    fn default() -> Chunking {
        Chunking {
            algorithm: Algorithm::FastCdc2020Level1,
            segment_bytes: 4 * 1024 * 1024,
            chunk_bytes_min: 16 * 1024,
            chunk_bytes_avg: 64 * 1024,
            chunk_bytes_max: 256 * 1024,
            hole_bytes_min: 64 * 1024,
        }
    }
}

impl Chunking {
    /// Small enough that a test meets every kind of border.
    #[cfg(test)]
    pub(crate) fn tiny() -> Chunking {
        Chunking {
            segment_bytes: 512 * 1024,
            chunk_bytes_min: 1024,
            chunk_bytes_avg: 4096,
            chunk_bytes_max: 16 * 1024,
            hole_bytes_min: 16 * 1024,
            ..Chunking::default()
        }
    }

    /// Whether the parameters are ones that this software can cut with.
    pub(crate) fn is_usable(&self) -> bool {
        let sizes = [self.chunk_bytes_min, self.chunk_bytes_avg, self.chunk_bytes_max, self.segment_bytes];
        sizes.iter().all(|size| size.is_power_of_two())
            && sizes.is_sorted_by(|a, b| a < b)
            && self.chunk_bytes_min >= CHUNK_BYTES_MIN_LEAST
            && self.chunk_bytes_max <= CHUNK_BYTES_MAX_MOST
            && self.segment_bytes <= SEGMENT_BYTES_MOST
            && self.segment_bytes as usize >= BLOCK_BYTES
            && self.hole_bytes_min as usize >= BLOCK_BYTES
    }
}

impl Default for StreamChunking {
    fn default() -> StreamChunking {
        StreamChunking {
            algorithm: Algorithm::FastCdc2020Level1,
            chunk_bytes_min: 256 * 1024,
            chunk_bytes_avg: 1024 * 1024,
            chunk_bytes_max: BLOB_BYTES_MAX as u32,
        }
    }
}

impl StreamChunking {
    /// Whether the parameters are ones that this software can cut with.
    pub(crate) fn is_usable(&self) -> bool {
        let sizes = [self.chunk_bytes_min, self.chunk_bytes_avg, self.chunk_bytes_max];
        sizes.iter().all(|size| size.is_power_of_two())
            && sizes.is_sorted_by(|a, b| a < b)
            && self.chunk_bytes_min >= CHUNK_BYTES_MIN_LEAST
            && self.chunk_bytes_max as usize <= BLOB_BYTES_MAX
    }

    /// The most bytes of a stream in one chunk: with so many at hand, the first cut is where it always is.
    pub(crate) fn chunk_bytes_max(&self) -> usize {
        self.chunk_bytes_max as usize
    }

    /// How long the next chunk of a stream is. `bytes` must be longer than the longest chunk, or all that is left.
    pub(crate) fn next_cut(&self, seed: u64, bytes: &[u8]) -> usize {
        let Algorithm::FastCdc2020Level1 = self.algorithm;
        let mut chunker = FastCDC::with_level_and_seed(
            bytes,
            self.chunk_bytes_min as usize,
            self.chunk_bytes_avg as usize,
            self.chunk_bytes_max as usize,
            Normalization::Level1,
            seed,
        );
        chunker.next().map_or(0, |chunk| chunk.length)
    }
}

/// One piece of a segment, as a range of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Hole(Range<usize>),
    Chunk(Range<usize>),
}

/// Cuts one segment. Deterministic.
pub(crate) fn cut(chunking: &Chunking, seed: u64, segment: &[u8]) -> Vec<Cut> {
    cut_part(chunking, seed, segment, 0..segment.len())
}

/// Cuts a part of a segment as if nothing lay around it. The pieces are ranges of the segment.
pub(crate) fn cut_part(chunking: &Chunking, seed: u64, segment: &[u8], part: Range<usize>) -> Vec<Cut> {
    let Algorithm::FastCdc2020Level1 = chunking.algorithm;
    let mut chunker = FastCDC::with_level_and_seed(
        &[],
        chunking.chunk_bytes_min as usize,
        chunking.chunk_bytes_avg as usize,
        chunking.chunk_bytes_max as usize,
        Normalization::Level1,
        seed,
    );
    let mut cuts = Vec::with_capacity(part.len() / chunking.chunk_bytes_avg as usize + 2);
    for stretch in stretches(segment, part, chunking.hole_bytes_min as usize) {
        match stretch {
            Cut::Hole(range) => cuts.push(Cut::Hole(range)),
            Cut::Chunk(range) => {
                let start = range.start;
                let chunks = chunker.rechunk(&segment[range]);
                cuts.extend(chunks.map(|c| Cut::Chunk(start + c.offset..start + c.offset + c.length)));
            }
        }
    }
    cuts
}

/// Splits a part of a segment into holes and stretches of data.
fn stretches(segment: &[u8], part: Range<usize>, hole_bytes_min: usize) -> Vec<Cut> {
    let mut found = Vec::new();
    let mut data_start = part.start;
    let mut zero_start = None;
    let close = |zero_start: Option<usize>, end: usize, data_start: &mut usize, found: &mut Vec<Cut>| {
        if let Some(start) = zero_start
            && end - start >= hole_bytes_min
        {
            if *data_start < start {
                found.push(Cut::Chunk(*data_start..start));
            }
            found.push(Cut::Hole(start..end));
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
        return vec![Cut::Hole(part)];
    }
    close(zero_start, part.end, &mut data_start, &mut found);
    if data_start < part.end {
        found.push(Cut::Chunk(data_start..part.end));
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

/// Whether all bytes are zero; compares words, so that it runs at the speed of memory.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|word| word == &[0; 64]) && rest.iter().all(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_of(cut: &Cut) -> Range<usize> {
        match cut {
            Cut::Hole(range) | Cut::Chunk(range) => range.clone(),
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

    proptest! {
        #[test]
        fn pieces_joined_cover_the_segment_and_holes_hold_only_zeros(segment in segment(), seed: u64) {
            let cuts = cut(&Chunking::default(), seed, &segment);
            let mut at = 0;
            for piece in &cuts {
                let range = bytes_of(piece);
                prop_assert_eq!(range.start, at);
                prop_assert!(range.end > range.start);
                if let Cut::Hole(_) = piece {
                    prop_assert!(is_zero(&segment[range.clone()]));
                } else {
                    prop_assert!(range.len() <= 256 * 1024);
                }
                at = range.end;
            }
            prop_assert_eq!(at, segment.len());
            prop_assert_eq!(cuts, cut(&Chunking::default(), seed, &segment));
        }
    }

    #[test]
    fn cut_points_never_change() {
        let mut segment = vec![0; 1024 * 1024];
        blake3::Hasher::new().update(b"golden").finalize_xof().fill(&mut segment);
        segment[500_000..700_000].fill(0);
        let ends: Vec<_> =
            cut(&Chunking::default(), 0x5eed, &segment).iter().map(|piece| bytes_of(piece).end).collect();
        assert_eq!(ends, GOLDEN_ENDS);
    }

    /// As cut by `fastcdc` 5.0.0. A change here silently ends deduplication with everything stored before.
    const GOLDEN_ENDS: &[usize] = &[
        39_420, 97_421, 124_159, 217_741, 275_555, 347_307, 365_313, 437_206, 503_808, 696_320, 790_630,
        882_092, 949_173, 1_045_601, 1_048_576,
    ];
}
