//! Errors about mounts.

use std::io;
use std::path::PathBuf;

use crate::files::{FileSystem, FilesError};

/// Something could not be mounted or unmounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The operating system refused.
    #[error("could not {attempt} {}", path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// The file or folder concerned.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A disk cannot be shown under this name.
    #[error("{name:?} cannot be the name of a disk's file: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The folder cannot be mounted on.
    #[error("{} cannot be mounted on: {why}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The partition table of a disk could not be read.
    #[error("could not find the partitions of {disk}")]
    Partitions {
        /// The disk.
        disk: String,
        /// The cause.
        #[source]
        source: FilesError,
    },
    /// No disk or partition of this name is shown.
    #[error("there is no {name}; there are: {there}")]
    NoSuchDisk {
        /// The name.
        name: String,
        /// Those that are there, for people.
        there: String,
    },
    /// What it holds is not a file system that the kernel mounts.
    #[error("{name} holds {found}, which cannot be mounted")]
    NotMountable {
        /// The disk or partition.
        name: String,
        /// What it holds.
        found: FileSystem,
    },
    /// `mount` failed.
    #[error("mount refused {name}: {message}")]
    Refused {
        /// The disk or partition.
        name: String,
        /// Its message on stderr.
        message: String,
    },
    /// `mount` did not end.
    #[error("mount did not end within {seconds} s for {name}")]
    TimedOut {
        /// The disk or partition.
        name: String,
        /// How long was waited.
        seconds: u64,
    },
    /// A process still uses files in it. It was detached: others do not see it any more, and it ends with its last
    /// user.
    #[error("{} was still in use and was detached", path.display())]
    StillInUse {
        /// The mount.
        path: PathBuf,
    },
}
