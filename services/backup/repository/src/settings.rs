//! How much of a machine the engine may use.

use std::num::NonZero;

use crate::restore::plan::READ_BYTES_MAX;

/// Packs are written with one plain PUT each; this size makes few requests and bounded memory.
pub(crate) const PACK_BYTES_TARGET: usize = 32 * 1024 * 1024;
/// What a segment may take while it is worked on: its bytes, and as much again for what is made of them.
pub(crate) const SEGMENT_WORK_BYTES: usize = 8 * 1024 * 1024;
/// Below this a backup could not hold two data packs, a recipe pack and two segments.
pub const MEMORY_BYTES_MIN: usize = 3 * PACK_BYTES_TARGET + 2 * SEGMENT_WORK_BYTES;
/// More segments in flight than this only wait for each other.
const SEGMENTS_MAX: usize = 64;
/// More uploads at once than this gain nothing on one line.
const PACKS_MAX: usize = 16;

/// More ranges at once than this gain nothing on one line.
const RANGES_MAX: usize = 16;

/// Bounds on memory and threads, for each backup or restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// The most memory that the buffers of one backup or restore take together; raised to
    /// [`MEMORY_BYTES_MIN`] when less. The index comes on top.
    pub memory_bytes_max: usize,
    /// Threads that cut, hash, compress and seal.
    pub workers: NonZero<usize>,
}

impl Default for EngineSettings {
    /// 256 MiB, and a worker for each processor.
    fn default() -> EngineSettings {
        let workers = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        EngineSettings { memory_bytes_max: 256 * 1024 * 1024, workers }
    }
}

impl EngineSettings {
    fn memory(&self) -> usize {
        self.memory_bytes_max.max(MEMORY_BYTES_MIN)
    }

    /// Packs being filled or uploaded at one time: half of the memory.
    pub(crate) fn packs_in_flight(&self) -> usize {
        (self.memory() / 2 / PACK_BYTES_TARGET).clamp(3, PACKS_MAX)
    }

    /// Segments being read or cut at one time: what the packs leave.
    pub(crate) fn segments_in_flight(&self) -> usize {
        let left = self.memory() - self.packs_in_flight() * PACK_BYTES_TARGET;
        (left / SEGMENT_WORK_BYTES).clamp(2, SEGMENTS_MAX)
    }

    /// Ranges of packs being read or opened at one time: each is held once sealed and once open.
    pub(crate) fn ranges_in_flight(&self) -> usize {
        (self.memory() / 2 / READ_BYTES_MAX as usize).clamp(2, RANGES_MAX)
    }

    /// What a reader of one disk in order keeps decoded: a quarter of the memory.
    pub(crate) fn reader_bytes(&self) -> usize {
        self.memory() / 4
    }

    /// Parts of a disk being read or waiting for a writer at one time, in half of the memory: each is there up to
    /// three times, sealed, in chunks, and put together.
    pub(crate) fn parts_in_flight(&self, part_bytes: usize) -> usize {
        (self.memory() / 2 / (3 * part_bytes)).clamp(2, RANGES_MAX)
    }
}
