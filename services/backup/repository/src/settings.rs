//! How much memory and how many threads the engine may use.

use std::num::NonZero;
use std::path::PathBuf;

use crate::compression::Compression;
use crate::format::blob::BLOB_BYTES_MAX;
use crate::random::random;

/// Packs are written with one plain PUT each; this size makes few requests and bounded memory.
pub(crate) const PACK_BYTES_TARGET: usize = 32 * 1024 * 1024;
/// Memory of a segment in work: its bytes, and as much again for its chunks.
pub(crate) const SEGMENT_WORK_BYTES: usize = 8 * 1024 * 1024;
/// Below this a backup could not hold two data packs, a recipe pack and two segments.
pub const MEMORY_BYTES_MIN: usize = 3 * PACK_BYTES_TARGET + 2 * SEGMENT_WORK_BYTES;
/// More segments in flight than this only wait for each other.
const SEGMENTS_MAX: usize = 64;
/// More uploads at once than this gain nothing on one line.
const PACKS_MAX: usize = 16;

/// A range of a pack that is read at once is no longer than this: a bounded number of ranges takes bounded memory.
pub(crate) const READ_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// More ranges at once than this gain nothing on one line.
const RANGES_MAX: usize = 16;

/// Memory of one location in a hash table that is partly empty.
const LOCATION_BYTES: usize = 96;

/// Bounds on memory and threads, for each backup or restore, and how a backup is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// The most memory that the buffers of one backup or restore take together; raised to
    /// [`MEMORY_BYTES_MIN`] when less. The index comes on top, with some 1.5 bytes for each chunk stored.
    pub memory_bytes_max: usize,
    /// Threads that cut, hash, compress and encrypt.
    pub workers: NonZero<usize>,
    /// The local cache folder; it can be deleted. Without it the index is read from the store at each opening, and keys
    /// are not checked against those seen before.
    pub cache: Option<PathBuf>,
    /// How new chunks and recipes are compressed.
    pub compression: Compression,
    /// How much of what dirty bitmaps call unchanged is checked.
    pub dirty_bitmap_check: DirtyBitmapCheck,
}

/// How much of what a dirty bitmap calls unchanged is read anyway and compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirtyBitmapCheck {
    /// Nothing: dirty bitmaps are trusted.
    Off,
    /// A chunk of one segment in 64, at random, and of no more than about 64 segments of a disk: it costs a few MiB at
    /// most, and finds a bitmap that is wrong in many places almost certainly.
    #[default]
    Sample,
    /// Everything. The disk is read whole.
    Everything,
}

/// One segment in this many is checked.
const AUDIT_ONE_IN: u64 = 64;
/// At most about this many segments of one disk are checked.
const AUDITS_MAX: u64 = 64;

impl Default for EngineSettings {
    /// 256 MiB, a worker for each processor, no cache, and zstd at its fastest.
    fn default() -> EngineSettings {
        let workers = std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        EngineSettings {
            memory_bytes_max: 256 * 1024 * 1024,
            workers,
            cache: None,
            compression: Compression::default(),
            dirty_bitmap_check: DirtyBitmapCheck::default(),
        }
    }
}

impl DirtyBitmapCheck {
    /// Whether to audit the next segment of a disk with so many: at random, so that it cannot be predicted.
    pub(crate) fn selects(self, segments: u64) -> bool {
        let one_in = AUDIT_ONE_IN.max(segments / AUDITS_MAX);
        match self {
            DirtyBitmapCheck::Off => false,
            DirtyBitmapCheck::Sample => u64::from_le_bytes(random()).is_multiple_of(one_in),
            DirtyBitmapCheck::Everything => true,
        }
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

    /// Segments being read or cut at one time, in the memory that packs leave.
    pub(crate) fn segments_in_flight(&self) -> usize {
        let left = self.memory() - self.packs_in_flight() * PACK_BYTES_TARGET;
        (left / SEGMENT_WORK_BYTES).clamp(2, SEGMENTS_MAX)
    }

    /// Chunks of a stream being stored at one time.
    pub(crate) fn stream_chunks_in_flight(&self) -> usize {
        (self.segments_in_flight() * SEGMENT_WORK_BYTES / (2 * BLOB_BYTES_MAX)).clamp(2, SEGMENTS_MAX)
    }

    /// Ranges of packs being read or decrypted at one time: each is held encrypted and decrypted.
    pub(crate) fn ranges_in_flight(&self) -> usize {
        (self.memory() / 2 / READ_BYTES_MAX as usize).clamp(2, RANGES_MAX)
    }

    /// Locations of recipe blobs that a collection or verification caches, in the half of the memory that ranges leave.
    pub(crate) fn locations_cached(&self) -> usize {
        self.memory() / 2 / LOCATION_BYTES
    }

    /// What a reader of one disk in order keeps decoded: a quarter of the memory.
    pub(crate) fn reader_bytes(&self) -> usize {
        self.memory() / 4
    }

    /// Parts of a disk being read or waiting for a writer at one time, in half of the memory: each is held up to
    /// three times: encrypted, in chunks, and joined.
    pub(crate) fn parts_in_flight(&self, part_bytes: usize) -> usize {
        (self.memory() / 2 / (3 * part_bytes)).clamp(2, RANGES_MAX)
    }
}
