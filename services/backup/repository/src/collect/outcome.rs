//! The report and the errors of a collection.

use crate::Damage;
use crate::format::snapshot::SnapshotId;
use crate::index::IndexError;
use crate::open_error::OpenError;
use crate::restore::ReadError;
use crate::store::StoreError;

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// Packs in the store when it began.
    pub packs: u64,
    /// Packs newly condemned: needed by nothing, or rewritten.
    pub packs_condemned: u64,
    /// Packs, sparse or condemned, of which what is needed was copied into new ones.
    pub packs_rewritten: u64,
    /// Bytes so copied.
    pub bytes_rewritten: u64,
    /// Packs deleted.
    pub packs_deleted: u64,
    /// Their bytes.
    pub bytes_deleted: u64,
    /// Condemned packs that wait for running backups to end, or that turned out to be needed.
    pub packs_waiting: u64,
    /// Packs and snapshots whose locks were extended.
    pub locks_extended: u64,
}

/// A collection ended early. The next one continues.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A snapshot needs what is not there: nothing is deleted until that is understood.
    #[error("snapshot {snapshot} cannot be read whole, so nothing is deleted (verify, or rebuild the index)")]
    SnapshotIncomplete {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is wrong.
        #[source]
        source: ReadError,
    },
    /// A snapshot object is damaged: what it needs is unknown.
    #[error("snapshot {snapshot} is damaged, so nothing is deleted (verify, then forget or restore it)")]
    SnapshotDamaged {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is wrong.
        #[source]
        source: Damage,
    },
    /// The repository is not where it was opened, as after an unmount. Nothing was written.
    #[error("the repository is no longer where it was opened")]
    RepositoryGone(#[source] OpenError),
    /// What is needed of a sparse pack could not be read. Nothing of it was lost.
    #[error("could not rewrite a sparse pack")]
    Rewrite(#[from] ReadError),
    /// The index could not be read.
    #[error("could not read what the packs hold")]
    Index(#[from] IndexError),
    /// The store failed.
    #[error("could not collect in the store")]
    Store(#[from] StoreError),
    /// It was cancelled.
    #[error("the collection was cancelled")]
    Cancelled,
}
