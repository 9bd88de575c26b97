//! Sources of a backup: disks that report where their data is.
//!
//! ```text
//!   DiskSource: size, extents (data or zero, changed since the parent or not), read_at
//!       |-- RawFile       holes by SEEK_HOLE
//!       |-- NbdSource     block status and dirty bitmap over NBD, many requests in flight
//!       |-- QemuImage     qcow2 and other formats, through our own qemu-nbd
//!       '-- SnapshotDisk  what was backed up, see [`crate::restore`]
//! ```
//!
//! Promises: a read returns exactly the bytes asked for or an error; every wait is bounded. A source must not change while
//! it is read: the caller freezes it. [`DiskAddress`] is what a person writes.

mod address;
mod extents;
mod nbd;
pub(crate) mod qemu;
mod raw;

use std::error::Error;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

pub(crate) use address::probe;
pub use address::{DiskAddress, NotADiskAddress};
pub use extents::{Change, Extent, ExtentKind};
pub(crate) use extents::{SegmentPlan, plan};
pub use nbd::{NbdAddress, NbdExportSettings, NbdSource, NotAnNbdUri};
pub use qemu::{ImageFormat, ImageReferencePolicy, NotAnImageFormat, QemuImage};
pub use raw::RawFile;

/// A disk to be backed up.
#[async_trait]
pub trait DiskSource: Send + Sync {
    /// Its virtual size.
    fn size_bytes(&self) -> u64;

    /// The extents of `range`: in order, without gaps or overlaps, together exactly the range.
    async fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>, SourceError>;

    /// Reads `length` bytes at `offset`, which lie within the disk. Called for many ranges at once.
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, SourceError>;
}

/// A source could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// A source of another kind than those of this module failed.
    #[error("could not read {what}")]
    Other {
        /// The disk concerned.
        what: String,
        /// The cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The operating system refused.
    #[error("could not {attempt} {what}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// The file or server concerned.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// No answer in time.
    #[error("could not {attempt} {what}: no answer within {seconds} s")]
    TimedOut {
        /// What was attempted.
        attempt: &'static str,
        /// The server concerned.
        what: String,
        /// The timeout.
        seconds: f32,
    },
    /// The server violated its protocol.
    #[error("{what} broke the protocol: {why}")]
    Protocol {
        /// The server concerned.
        what: String,
        /// What it did.
        why: String,
    },
    /// A QEMU tool failed.
    #[error("could not {attempt} {what}: {stderr}")]
    Tool {
        /// What was attempted.
        attempt: &'static str,
        /// The image concerned.
        what: String,
        /// What it printed to stderr.
        stderr: String,
    },
    /// The server refused.
    #[error("{what} refused to {attempt}: {why}")]
    Refused {
        /// The server concerned.
        what: String,
        /// What was attempted.
        attempt: &'static str,
        /// The reason it gave.
        why: String,
    },
}
