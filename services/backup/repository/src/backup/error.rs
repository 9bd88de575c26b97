//! What can go wrong while a backup is made.

use super::packer::WorkerError;
use super::seal::SealBackupError;
use crate::damage::Damage;
use crate::index::IndexError;
use crate::open_error::OpenError;
use crate::restore::ReadError;
use crate::snapshots::SnapshotError;
use crate::source::SourceError;
use crate::store::StoreError;

/// The disks could not be copied. Nothing was left behind but packs that no snapshot refers to.
#[derive(Debug, thiserror::Error)]
pub enum CopyDisksError {
    /// Two disks or streams of one name, or none at all.
    #[error("a backup needs at least one disk or stream, each with a name of its own")]
    DiskNames,
    /// A stream could not be read.
    #[error("could not read stream {stream}")]
    Stream {
        /// The stream.
        stream: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// A stream has more chunks than one recipe can hold.
    #[error("stream {stream} is too long: its {bytes} bytes need a recipe of more than 4 MiB")]
    StreamTooLong {
        /// The stream.
        stream: String,
        /// How long it is.
        bytes: u64,
    },
    /// The repository is not where it was opened, as after an unmount. Nothing was written.
    #[error("the repository is no longer where it was opened")]
    RepositoryGone(#[source] OpenError),
    /// The parent cannot be read.
    #[error("could not read the parent snapshot")]
    Parent(#[source] SnapshotError),
    /// The parent's recipe cannot be read.
    #[error("could not read the recipe of the parent's disk {disk}")]
    ParentRecipe {
        /// The disk.
        disk: String,
        /// The cause.
        #[source]
        source: ReadError,
    },
    /// A disk could not be read.
    #[error("could not read disk {disk}")]
    Source {
        /// The disk.
        disk: String,
        /// The cause.
        #[source]
        source: SourceError,
    },
    /// A source's extents had gaps or overlaps, or a read was short.
    #[error("the source of disk {disk} contradicts itself at byte {at}")]
    SourceContractViolation {
        /// The disk.
        disk: String,
        /// Where.
        at: u64,
    },
    /// A segment that the dirty bitmap calls unchanged has changed. The disk is then read whole.
    #[error("the dirty bitmap of disk {disk} is wrong: the segment at byte {at} changed and is not in it")]
    DirtyBitmapMissedChange {
        /// The disk.
        disk: String,
        /// Where.
        at: u64,
    },
    /// The store lost a pack whose upload it had confirmed.
    #[error(
        "the store confirmed {pack} and does not list it with its {bytes} bytes: it lost what was written"
    )]
    UploadedPackLost {
        /// The object.
        pack: String,
        /// How long it should be.
        bytes: u64,
    },
    /// The index could not be read.
    #[error("could not find out what is already stored")]
    Index(#[from] IndexError),
    /// Packs could not be stored, or added to the index.
    #[error("could not store what was read")]
    Upload(#[source] IndexError),
    /// The store failed.
    #[error("could not reach the store")]
    Store(#[from] StoreError),
    /// A pack could not be encrypted.
    #[error("could not begin a pack")]
    Keys(#[source] Damage),
    /// The upload ended first; its own error is the one to report.
    #[error("the backup was interrupted while packs were filled")]
    UploadEnded,
    /// It sent no heartbeat for so long that a collection expired its lease.
    #[error("the backup made no progress for too long and its lease expired: start it again")]
    LeaseExpired,
    /// It was cancelled.
    #[error("the backup was cancelled")]
    Cancelled,
}

/// A backup, copied and sealed in one go, failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// While copying.
    #[error(transparent)]
    Copy(#[from] CopyDisksError),
    /// While sealing.
    #[error(transparent)]
    Seal(#[from] SealBackupError),
}

impl From<WorkerError> for CopyDisksError {
    fn from(stopped: WorkerError) -> CopyDisksError {
        match stopped {
            WorkerError::BackupEnded => CopyDisksError::UploadEnded,
            WorkerError::Index(error) => CopyDisksError::Index(error),
            WorkerError::Keys(damage) => CopyDisksError::Keys(damage),
        }
    }
}
