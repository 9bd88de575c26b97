//! Sealing: the commit that makes a backup exist.

use bytes::Bytes;
use tracing::{instrument, warn};
use ulid::Ulid;

use super::Draft;
use crate::Damage;
use crate::collect;
use crate::format::snapshot::{Snapshot, SnapshotId};
use crate::format::{encrypted, packed};
use crate::lease::{self, LeaseId, LeaseState};
use crate::open_error::OpenError;
use crate::repository::Repository;
use crate::restore::ReadError;
use crate::snapshots::SnapshotError;
use crate::store::{CreateOutcome, StoreError, names};

/// The draft could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealBackupError {
    /// Another backup has this id.
    #[error("there is already another snapshot {id}")]
    IdTaken {
        /// The id.
        id: SnapshotId,
    },
    /// The draft waited for so long that a collection deleted some of its data, or will.
    #[error("the draft waited for too long and its data is being collected: copy again")]
    DraftExpired,
    /// The repository is not where it was opened, as after an unmount. Nothing was written.
    #[error("the repository is no longer where it was opened")]
    RepositoryGone(#[source] OpenError),
    /// The check whether the draft's data is still there failed.
    #[error("could not check the draft's data")]
    DraftCheckFailed(#[source] ReadError),
    /// The snapshot of that id is there but cannot be read.
    #[error("could not read snapshot {id}, which exists already")]
    ExistingSnapshotDamaged {
        /// The id.
        id: SnapshotId,
        /// What is wrong with it.
        #[source]
        source: Damage,
    },
    /// The store failed; seal again to find out whether the snapshot exists.
    #[error("could not seal the backup")]
    Store(#[from] StoreError),
}

impl Repository {
    /// Makes the backup exist under `id`. Idempotent for the same draft and id.
    ///
    /// # Errors
    /// When the id belongs to another backup, the draft is stale, or the store fails.
    #[instrument(name = "repository.seal", skip(self, draft))]
    pub async fn seal(&self, draft: &Draft, id: SnapshotId) -> Result<Snapshot, SealBackupError> {
        self.probe().await.map_err(SealBackupError::RepositoryGone)?;
        let store = &self.shared.store;
        let copied_under = draft.lease_id();
        let snapshot = Snapshot { id, contents: draft.contents.clone() };
        if self.is_sealed(&snapshot).await? {
            return self.confirm(snapshot, copied_under, None).await;
        }
        match lease::renew(store, copied_under).await? {
            LeaseState::Held => self.commit(snapshot, copied_under, None).await,
            LeaseState::Expired | LeaseState::Ended => {
                let fresh = lease::acquire(store).await?;
                if !self.is_intact(&snapshot).await? {
                    lease::end(store, fresh).await?;
                    return Err(SealBackupError::DraftExpired);
                }
                // If we die between committing and confirming, sealing again must check again.
                lease::expire(store, copied_under).await?;
                self.commit(snapshot, copied_under, Some(fresh)).await
            }
        }
    }

    /// Discards a draft: what only it needs may be collected.
    ///
    /// # Errors
    /// When the store fails; the draft's lease then expires.
    pub async fn discard(&self, draft: &Draft) -> Result<(), StoreError> {
        lease::end(&self.shared.store, draft.lease_id()).await
    }

    /// The one write that commits.
    async fn commit(
        &self,
        snapshot: Snapshot,
        copied_under: LeaseId,
        fresh: Option<LeaseId>,
    ) -> Result<Snapshot, SealBackupError> {
        let name = names::entry(names::SNAPSHOTS, snapshot.id.ulid());
        let object = encrypted::encrypt(&self.shared.keys(), &name, packed::body(&snapshot.contents));
        match self.shared.store.create_locked(&name, Bytes::from(object)).await? {
            CreateOutcome::New => {}
            CreateOutcome::AlreadyThere => {
                // Another process seals the same draft.
                if !self.is_sealed(&snapshot).await? {
                    return Err(SealBackupError::DraftExpired);
                }
            }
        }
        self.confirm(snapshot, copied_under, fresh).await
    }

    /// Makes sure that no collection went on without waiting for us, and removes the snapshot if one did.
    async fn confirm(
        &self,
        snapshot: Snapshot,
        copied_under: LeaseId,
        fresh: Option<LeaseId>,
    ) -> Result<Snapshot, SealBackupError> {
        let store = &self.shared.store;
        let is_intact = match lease::state(store, fresh.unwrap_or(copied_under)).await? {
            // Held until now, or confirmed and ended before.
            LeaseState::Held | LeaseState::Ended => true,
            LeaseState::Expired => self.is_intact(&snapshot).await?,
        };
        if !is_intact {
            store.delete(&names::entry(names::SNAPSHOTS, snapshot.id.ulid())).await?;
        }
        for lease in fresh.into_iter().chain([copied_under]) {
            if let Err(error) = lease::end(store, lease).await {
                // The backup exists or does not; this lease expires.
                warn!(%error, %lease, "a lease could not be ended");
            }
        }
        if is_intact { Ok(snapshot) } else { Err(SealBackupError::DraftExpired) }
    }

    async fn is_intact(&self, snapshot: &Snapshot) -> Result<bool, SealBackupError> {
        collect::are_intact(&self.shared, &snapshot.contents.disks)
            .await
            .map_err(SealBackupError::DraftCheckFailed)
    }

    /// Whether exactly this snapshot exists; another of its id is an error.
    async fn is_sealed(&self, snapshot: &Snapshot) -> Result<bool, SealBackupError> {
        match self.snapshot(snapshot.id).await {
            Ok(found) if &found == snapshot => Ok(true),
            Ok(_) => Err(SealBackupError::IdTaken { id: snapshot.id }),
            Err(
                SnapshotError::Unknown { .. } | SnapshotError::Ambiguous { .. } | SnapshotError::Held { .. },
            ) => Ok(false),
            Err(SnapshotError::Damaged { id, source }) => {
                Err(SealBackupError::ExistingSnapshotDamaged { id, source })
            }
            Err(SnapshotError::Store(error)) => Err(error.into()),
        }
    }
}

impl Draft {
    fn lease_id(&self) -> LeaseId {
        // A draft whose lease id cannot be read is checked as if its lease had ended.
        Ulid::from_string(&self.lease).unwrap_or_else(|_| Ulid::generate())
    }
}
