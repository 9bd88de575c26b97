//! A disk of a backup that can be written, without the backup being written: a guest boots from it at once, and
//! after the fill does not need the backup any more.
//!
//! ```text
//!                  read                         write, zeroes, trim
//!                   |                                   |
//!       present? ───┴─── missing?             whole block ──> written
//!          |                |                 part of a missing block ──> the rest is read from the source first
//!          v                v                                 |
//!     NAME (sparse)      source                               v
//!          ^                |                        NAME, then the block is present
//!          '──── fill ──────'   whenever no guest waits
//!
//!     NAME.map: which disk this is, and a bit for every block that is present
//! ```
//!
//! Promises: the source is only read; what was flushed is there after a crash, of this process or of the machine,
//! because data are synced before the map that says so; opened again, it goes on where it was; another
//! disk's overlay is refused and no foreign file is touched; one process at a time. When every block is present, `NAME`
//! is the whole disk as a raw image, with nothing else needed to read it.
//!
//! An overlay whose disk failed to sync refuses every further write: what the kernel kept is not known (a later sync
//! would succeed nevertheless). Opened again it has what is safely on disk.
//!
//! It deliberately does not know NBD. Next: [`Overlay`], then `local.rs` for the order of writes, `fill.rs`.

mod bitmap;
mod claims;
mod demand;
mod disk;
mod error;
mod fill;
mod local;
mod map;

pub use disk::{FillProgress, Overlay, OverlaySettings};
pub use error::OverlayError;
pub use fill::{Fill, FillError, FillSettings};
pub use local::ZeroWriteMode;

/// The source's bytes become the overlay's own in pieces of this size: what QEMU's copy-on-write does, too.
pub const BLOCK_BYTES: u64 = 64 * 1024;

/// Larger disks are refused: the bitmap of one takes 128 MiB of memory.
pub const DISK_BYTES_MAX: u64 = 1 << 46;
