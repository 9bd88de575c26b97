//! What a verification is asked and what it answers.

use std::time::Duration;

use crate::Damage;
use crate::format::snapshot::{Snapshot, SnapshotId};
use crate::ids::BlobId;
use crate::restore::ReadError;
use crate::store::StoreError;

/// A report names no more problems than this, so that a lost disk does not fill the memory; all are counted.
const PROBLEMS_NAMED_MAX: usize = 1000;

/// What is to be read again.
#[derive(Clone, Copy, Debug)]
pub enum VerifyScope<'a> {
    /// All that this snapshot needs.
    Snapshot(&'a Snapshot),
    /// Every pack, and every snapshot's recipe.
    Everything,
    /// Packs that were not found good for a while, within a budget. What is found is remembered in the store.
    Rolling {
        /// No more bytes than this are read, but for the first pack.
        bytes_max: u64,
        /// A pack is due when it was found good longer ago than this, by the store's clock, or never.
        older_than: Duration,
    },
}

/// Something that is not as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// A pack as a whole.
    Pack {
        /// Its object name.
        name: String,
        /// What is wrong.
        damage: Damage,
    },
    /// One blob of a pack.
    Blob {
        /// The pack's object name.
        pack: String,
        /// The blob.
        id: BlobId,
        /// What is wrong.
        damage: Damage,
    },
    /// A snapshot object.
    Snapshot {
        /// The snapshot.
        id: SnapshotId,
        /// What is wrong.
        damage: Damage,
    },
    /// A disk of a snapshot cannot be restored whole.
    Disk {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The disk.
        disk: String,
        /// Where on the disk the first trouble of this stretch lies.
        at_byte: u64,
        /// What is wrong.
        damage: Damage,
    },
}

/// What a verification saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Packs read whole.
    pub packs: u64,
    /// Packs that are due and were left for the next time.
    pub packs_left: u64,
    /// Blobs opened and hashed.
    pub blobs: u64,
    /// Snapshots walked.
    pub snapshots: u64,
    /// Problems found, named or not.
    pub problems_total: u64,
    /// The first problems, at most a thousand.
    pub problems: Vec<Problem>,
}

impl VerifyReport {
    /// Whether everything was as it should be.
    pub fn is_sound(&self) -> bool {
        self.problems_total == 0
    }

    pub(super) fn add(&mut self, problem: Problem) {
        self.problems_total += 1;
        if self.problems.len() < PROBLEMS_NAMED_MAX {
            self.problems.push(problem);
        }
    }
}

/// The verification could not be carried through.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The store failed or the index is damaged; the index can be rebuilt.
    #[error("could not read the repository")]
    Read(#[from] ReadError),
    /// It was told to stop.
    #[error("the verification was cancelled")]
    Cancelled,
}

impl From<StoreError> for VerifyError {
    fn from(error: StoreError) -> VerifyError {
        VerifyError::Read(error.into())
    }
}
