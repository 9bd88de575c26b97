//! The scope, the report and the errors of a verification.

use std::time::Duration;

use crate::Damage;
use crate::format::snapshot::{Snapshot, SnapshotId};
use crate::ids::BlobId;
use crate::restore::ReadError;
use crate::store::StoreError;

/// A report names no more problems than this, so that a lost disk does not fill the memory; all are counted.
const PROBLEMS_NAMED_MAX: usize = 1000;

/// What to verify.
#[derive(Clone, Copy, Debug)]
pub enum VerifyScope<'a> {
    /// All that this snapshot needs.
    Snapshot(&'a Snapshot),
    /// Every pack, and every snapshot's recipe.
    Everything,
    /// Packs that were not verified for a while, within a budget. Times of verification are stored in the repository.
    Rolling {
        /// No more bytes than this are read, but for the first pack.
        bytes_max: u64,
        /// A pack is due when it was verified longer ago than this, by the store's clock, or never.
        older_than: Duration,
    },
}

/// Damage that was found.
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
        /// The offset on the disk of the first damage in a range of segments.
        at_byte: u64,
        /// What is wrong.
        damage: Damage,
    },
}

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Packs read whole.
    pub packs: u64,
    /// Packs that are due and did not fit the budget.
    pub packs_left: u64,
    /// Blobs decrypted and hashed.
    pub blobs: u64,
    /// Snapshots walked.
    pub snapshots: u64,
    /// Problems found, named or not.
    pub problems_total: u64,
    /// The first problems, at most a thousand.
    pub problems: Vec<Problem>,
}

impl VerifyReport {
    /// Whether no damage was found.
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

/// The verification could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The store failed or the index is damaged; the index can be rebuilt.
    #[error("could not read the repository")]
    Read(#[from] ReadError),
    /// It was cancelled.
    #[error("the verification was cancelled")]
    Cancelled,
}

impl From<StoreError> for VerifyError {
    fn from(error: StoreError) -> VerifyError {
        VerifyError::Read(error.into())
    }
}
