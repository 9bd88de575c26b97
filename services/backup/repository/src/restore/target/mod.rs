//! Restore targets: a file or device, or an image behind our own `qemu-nbd`.
//!
//! ```text
//!   worker threads ──read, write, zero──> FileTarget    pwrite, fallocate
//!                                     '─> ServedTarget  jobs to an async task ──NBD──> qemu-nbd ──> qcow2
//! ```
//!
//! It knows offsets and bytes, and nothing of chunks.

mod file;
mod served;

use std::ops::Range;

pub(super) use self::file::{FileTarget, Fit, uncache};
pub(super) use self::served::ServedImage;
use super::ImageError;

/// A target with random access, written by many threads at once. Calls block.
pub(super) trait Target: Send + Sync {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), ImageError>;

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), ImageError>;

    /// Makes a range read as zeros, and frees its space where possible.
    fn zero(&self, range: Range<u64>) -> Result<(), ImageError>;

    /// The first offset in `range` that may hold something else than zeros; its end when there is none.
    fn next_data(&self, range: Range<u64>) -> Result<u64, ImageError>;

    /// Puts what was written on stable storage.
    fn sync(&self) -> Result<(), ImageError>;
}
