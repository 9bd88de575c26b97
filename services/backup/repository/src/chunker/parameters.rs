//! Chunking parameters: chosen at init, stored in the config, equal for all writers.

use fastcdc::v2020::{FastCDC, Normalization};
use serde::{Deserialize, Serialize};

use super::BLOCK_BYTES;
use crate::format::blob::BLOB_BYTES_MAX;

/// Limits of the chunker crate, which checks them in debug builds only.
const CHUNK_BYTES_MIN_LEAST: u32 = 64;
const CHUNK_BYTES_MAX_MOST: u32 = 1024 * 1024;
/// A segment buffer is the unit of memory and of reading.
const SEGMENT_BYTES_MOST: u32 = 64 * 1024 * 1024;

/// How disks are cut into chunks of 16 to 256 KiB. Streams are always cut by FastCDC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Chunker {
    /// FastCDC (Xia et al. 2020), which reads every byte and cuts anywhere.
    #[default]
    FastCdc,
    /// Content-defined as well, but on the grid of 4 KiB on which guest file systems place their data. A keyed
    /// universal hash and AES choose the blocks after which it cuts, so that the lengths of chunks say nothing about
    /// contents to who does not have the key. Several times as fast; what moved by less than a block is not found again.
    AlignedCdc,
}

/// The parameters of a repository that decide where disks are cut. Stored at `init`, equal for all writers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chunking {
    pub(super) algorithm: Algorithm,
    pub(crate) segment_bytes: u32,
    pub(super) chunk_bytes_min: u32,
    pub(super) chunk_bytes_avg: u32,
    pub(super) chunk_bytes_max: u32,
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

/// Cut points are part of the format: another chunker or version gets another name here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Algorithm {
    /// FastCDC of 2020 with normalisation level 1, as cut by `fastcdc` 5.0.0.
    FastCdc2020Level1,
    /// See [`super::aligned`].
    AlignedGhashAes,
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

impl From<Chunker> for Chunking {
    fn from(chunker: Chunker) -> Chunking {
        let algorithm = match chunker {
            Chunker::FastCdc => Algorithm::FastCdc2020Level1,
            Chunker::AlignedCdc => Algorithm::AlignedGhashAes,
        };
        Chunking { algorithm, ..Chunking::default() }
    }
}

impl Chunking {
    /// Small enough that a test covers every kind of border.
    #[cfg(test)]
    pub(crate) fn tiny(chunker: Chunker) -> Chunking {
        let [chunk_bytes_min, chunk_bytes_avg, chunk_bytes_max] = match chunker {
            Chunker::FastCdc => [1024, 4096, 16 * 1024],
            Chunker::AlignedCdc => [8 * 1024, 16 * 1024, 64 * 1024],
        };
        Chunking {
            segment_bytes: 512 * 1024,
            chunk_bytes_min,
            chunk_bytes_avg,
            chunk_bytes_max,
            hole_bytes_min: 16 * 1024,
            ..chunker.into()
        }
    }

    /// Which of the chunkers it is.
    pub(crate) fn chunker(&self) -> Chunker {
        match self.algorithm {
            Algorithm::FastCdc2020Level1 => Chunker::FastCdc,
            Algorithm::AlignedGhashAes => Chunker::AlignedCdc,
        }
    }

    /// Whether the parameters are ones that this software can cut with.
    pub(crate) fn is_usable(&self) -> bool {
        let sizes = [self.chunk_bytes_min, self.chunk_bytes_avg, self.chunk_bytes_max, self.segment_bytes];
        let chunks_are_usable = match self.algorithm {
            Algorithm::FastCdc2020Level1 => self.chunk_bytes_min >= CHUNK_BYTES_MIN_LEAST,
            // Of so few blocks one can be chosen in less and in more than the average.
            Algorithm::AlignedGhashAes => self.chunk_bytes_avg as usize >= 4 * BLOCK_BYTES,
        };
        sizes.iter().all(|size| size.is_power_of_two())
            && sizes.is_sorted_by(|a, b| a < b)
            && chunks_are_usable
            && self.chunk_bytes_max <= CHUNK_BYTES_MAX_MOST
            && self.segment_bytes <= SEGMENT_BYTES_MOST
            && self.segment_bytes as usize >= BLOCK_BYTES
            && self.hole_bytes_min as usize >= BLOCK_BYTES
    }

    /// FastCDC with these sizes, over nothing yet.
    pub(super) fn fastcdc(&self, seed: u64) -> FastCDC<'static> {
        let [min, avg, max] =
            [self.chunk_bytes_min, self.chunk_bytes_avg, self.chunk_bytes_max].map(|size| size as usize);
        FastCDC::with_level_and_seed(&[], min, avg, max, Normalization::Level1, seed)
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
        self.algorithm == Algorithm::FastCdc2020Level1
            && sizes.iter().all(|size| size.is_power_of_two())
            && sizes.is_sorted_by(|a, b| a < b)
            && self.chunk_bytes_min >= CHUNK_BYTES_MIN_LEAST
            && self.chunk_bytes_max as usize <= BLOB_BYTES_MAX
    }

    /// The most bytes of a stream in one chunk: with so many available, the first cut does not change.
    pub(crate) fn chunk_bytes_max(&self) -> usize {
        self.chunk_bytes_max as usize
    }

    /// How long the next chunk of a stream is. `bytes` must be longer than the longest chunk, or all that is left.
    pub(crate) fn next_cut(&self, seed: u64, bytes: &[u8]) -> usize {
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
