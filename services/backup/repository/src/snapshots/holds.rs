//! Holds: a held snapshot is not forgotten, by policy or by id, until it is released.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tracing::instrument;

use super::SnapshotError;
use crate::damage::Damage;
use crate::format::snapshot::SnapshotId;
use crate::format::{encrypted, packed};
use crate::repository::{Repository, unix_ms_now};
use crate::store::{StoreError, names};

/// A reason longer than this is a document.
const REASON_CHARS_MAX: usize = 500;
const WHAT: &str = "hold";

/// A hold on a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The held snapshot.
    pub snapshot: SnapshotId,
    /// Free text, 1 to 500 characters.
    pub reason: String,
    /// When it was placed, in milliseconds since 1970.
    pub since_unix_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Record {
    reason: String,
    since_unix_ms: u64,
}

/// A hold could not be placed, released or listed.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// No usable reason.
    #[error("a hold needs a reason of 1 to {REASON_CHARS_MAX} characters")]
    Reason,
    /// There is no such snapshot.
    #[error("could not find the snapshot to hold")]
    Snapshot(#[from] SnapshotError),
    /// A hold cannot be read. It is still in force.
    #[error("could not read the hold on {snapshot}")]
    Damaged {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is wrong.
        #[source]
        source: Damage,
    },
    /// The store failed.
    #[error("could not reach the holds")]
    Store(#[from] StoreError),
}

pub(crate) fn encode(reason: &str, since_unix_ms: u64) -> Vec<u8> {
    packed::body(&Record { reason: reason.to_owned(), since_unix_ms })
}

impl Repository {
    /// Holds a snapshot; a hold that is there already gets the new reason.
    ///
    /// # Errors
    /// When there is no such snapshot, no reason, or the store fails.
    #[instrument(name = "repository.hold", skip(self, reason))]
    pub async fn hold(&self, id: SnapshotId, reason: &str) -> Result<(), HoldError> {
        let chars = reason.chars().count();
        if chars == 0 || chars > REASON_CHARS_MAX {
            return Err(HoldError::Reason);
        }
        self.snapshot(id).await?;
        let name = names::entry(names::HOLDS, id.ulid());
        let object = encrypted::encrypt(&self.shared.keys(), &name, encode(reason, unix_ms_now()));
        Ok(self.shared.store.put(&name, Bytes::from(object)).await?)
    }

    /// Releases a snapshot; one that is not held counts as released.
    ///
    /// # Errors
    /// When the store fails.
    #[instrument(name = "repository.release", skip(self))]
    pub async fn release(&self, id: SnapshotId) -> Result<(), HoldError> {
        Ok(self.shared.store.delete(&names::entry(names::HOLDS, id.ulid())).await?)
    }

    /// Every hold, oldest first.
    ///
    /// # Errors
    /// When the store fails or a hold cannot be read.
    pub async fn holds(&self) -> Result<Vec<Hold>, HoldError> {
        let mut holds = Vec::new();
        for snapshot in self.held().await? {
            let name = names::entry(names::HOLDS, snapshot.ulid());
            let object = match self.shared.store.get(&name).await {
                Ok(object) => object,
                // Released since it was listed.
                Err(StoreError::NotFound { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            let Record { reason, since_unix_ms } =
                encrypted::decrypt(&self.shared.keys(), &name, WHAT, &object)
                    .and_then(|text| packed::decode(&text, WHAT))
                    .map_err(|source| HoldError::Damaged { snapshot, source })?;
            holds.push(Hold { snapshot, reason, since_unix_ms });
        }
        holds.sort_by_key(|hold| (hold.since_unix_ms, hold.snapshot));
        Ok(holds)
    }

    /// The held snapshots; holds that cannot be read count.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn held(&self) -> Result<Vec<SnapshotId>, StoreError> {
        let ids = self.shared.store.entries(names::HOLDS).await?;
        Ok(ids.into_iter().map(SnapshotId::from).collect())
    }
}
