//! Errors about files of a disk.

use std::io;

use backup_repository::SourceError;

use super::entry::ENTRIES_MAX;
use super::probe::FileSystem;

/// A file or folder could not be read.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The disk could not be read.
    #[error("could not read the disk")]
    Disk(#[source] io::Error),
    /// There is no such partition.
    #[error("the disk has no partition {wanted}; there are: {there}")]
    NoSuchPartition {
        /// The requested number.
        wanted: u32,
        /// Those that are there, for people.
        there: String,
    },
    /// A file system that only the kernel reads.
    #[error("there is {found}, which only the kernel reads: use a mount")]
    NeedsMount {
        /// What is there.
        found: FileSystem,
    },
    /// Nothing that is known begins there.
    #[error("no known file system begins there")]
    NoFileSystem,
    /// The file system or partition table contradicts itself.
    #[error("the {what} is damaged or of an unknown kind: {why}")]
    Damaged {
        /// What is damaged.
        what: &'static str,
        /// How it shows.
        why: String,
    },
    /// There is no such path.
    #[error("{path} does not exist")]
    NotFound {
        /// The path.
        path: String,
    },
    /// What the path names is of another kind than the call needs.
    #[error("{path} is {is}")]
    WrongEntryKind {
        /// The path.
        path: String,
        /// What it is, for people.
        is: &'static str,
    },
    /// The path cannot be one of this file system's.
    #[error("{path:?} cannot be a path: begin it with a slash")]
    NoPath {
        /// The path.
        path: String,
    },
    /// The file is larger than the caller's limit.
    #[error("{path} has {size_bytes} bytes, more than the limit of {bytes_max}")]
    TooLarge {
        /// The path.
        path: String,
        /// Its size.
        size_bytes: u64,
        /// The limit given.
        bytes_max: u64,
    },
    /// A folder is too long to be listed.
    #[error("{path} has more than {ENTRIES_MAX} entries")]
    TooMany {
        /// The path.
        path: String,
    },
    /// What was read could not be passed on.
    #[error("could not write the extracted file")]
    Write(#[source] io::Error),
}

impl From<SourceError> for FilesError {
    fn from(error: SourceError) -> FilesError {
        FilesError::Disk(io::Error::other(error))
    }
}
