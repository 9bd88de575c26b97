//! Errors of an overlay.

use std::io;
use std::path::PathBuf;

use backup_repository::SourceError;

use super::DISK_BYTES_MAX;

/// An overlay could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The operating system refused.
    #[error("could not {attempt} {path}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// The file concerned.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The source below could not be read.
    #[error("could not read the disk below the overlay")]
    Source(#[from] SourceError),
    /// Another process has it open.
    #[error("{path} is in use by another process")]
    InUse {
        /// The map of the overlay.
        path: PathBuf,
    },
    /// It belongs to another disk.
    #[error(
        "{path} is an overlay of {found}, not of {wanted}: choose another place, or remove it with its map"
    )]
    OtherDisk {
        /// The map of the overlay.
        path: PathBuf,
        /// The disk it belongs to.
        found: String,
        /// The disk it should belong to.
        wanted: String,
    },
    /// What is there is no overlay, or not a whole one.
    #[error("{path} cannot be used as an overlay: {why}")]
    NotAnOverlay {
        /// The file concerned.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A disk this large is not served.
    #[error("a disk of {size_bytes} bytes is too large for an overlay: the most is {DISK_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        size_bytes: u64,
    },
    /// The name of the disk is too long to be written into the map.
    #[error("the id of a disk has at most {max} bytes")]
    IdTooLong {
        /// The most.
        max: usize,
    },
    /// An earlier sync failed.
    #[error(
        "{path} was not synced when it should have been: open the overlay again to see what is safely there"
    )]
    NotSynced {
        /// The overlay.
        path: PathBuf,
    },
    /// The range is not on the disk.
    #[error("{length} bytes at {offset} lie beyond the end of the disk")]
    OutOfRange {
        /// Where.
        offset: u64,
        /// How much.
        length: u64,
    },
}

impl OverlayError {
    /// Whether there is no room left where the overlay lies.
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, OverlayError::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}
