//! Backup: copy the disks, then seal.
//!
//! Promises: [`Repository::copy`] leaves nothing but packs and index shards until its [`Draft`] is sealed;
//! [`Repository::seal`] is one create-if-absent write, and doing it again with the same draft and id changes
//! nothing. A draft can be serialized and sealed by another process. To seal is to commit: after it the backup exists.
//!
//! ```text
//!   source ──page plan──> segments in flight (memory bound) ──> worker threads: cut, hash, look up,
//!                                                              compress, encrypt into the open pack
//!   uploads in flight (memory bound) <── full packs, at most as many as have a permit
//!        │ confirmed                                   order of segments ──> leaf ids ──> pages ──> disk
//!        v
//!   index rows, shards of 256 Ki rows
//! ```
//!
//! Two bounds hold the memory: permits for packs (filled or uploading) and the number of segments in flight. A
//! worker without a pack permit waits for an upload; uploads wait only for the store, so there is no deadlock.
//!
//! It does not know how a disk was frozen in time nor who asked for the backup.

mod audit;
mod disk;
mod error;
mod packer;
mod patch;
mod plan;
mod request;
mod seal;
mod session;
mod stream;
mod upload;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, instrument, warn};

use crate::Cancel;
use crate::collect::{self, condemned};
use crate::format::private::Private;
use crate::format::snapshot::{BackupStats, DiskRecord, RecordKind, Snapshot, SnapshotContents, SnapshotId};
use crate::index;
use crate::lease::{self, LeaseId, LeaseState};
use crate::progress::{Progress, raise};
use crate::repository::Repository;
use crate::store::names;

pub use self::error::{BackupError, CopyDisksError};
use self::plan::ParentDisk;
pub use self::request::{BackupRequest, Draft};
pub use self::seal::SealBackupError;
use self::session::Session;
pub use self::stream::StreamSource;
use self::upload::StoredPack;
use crate::ids::PackId;

/// A backup that failed ends its lease at once when the store lets it, and waits no longer than this.
const LEASE_END_TIMEOUT: Duration = Duration::from_secs(5);

/// What is done with packs that were filled.
#[derive(Clone, Copy)]
enum NewPacks {
    Store,
    Discard,
}

impl Repository {
    /// Copies and seals: [`Repository::copy`] and [`Repository::seal`] under a new id.
    ///
    /// # Errors
    /// As those two.
    pub async fn backup(
        &self,
        request: BackupRequest,
        progress: &Arc<Progress>,
        cancel: &Cancel,
    ) -> Result<Snapshot, BackupError> {
        let draft = self.copy(request, progress, cancel).await?;
        Ok(self.seal(&draft, SnapshotId::generate()).await?)
    }

    /// Stores all that the disks hold and the repository does not. `progress` must be fresh: the snapshot's
    /// statistics are read from it. Dropping the future stops the work as cancelling does.
    ///
    /// # Errors
    /// When a source or the store fails, or the work is cancelled.
    #[instrument(name = "repository.copy", skip_all, fields(machine = request.machine))]
    pub async fn copy(
        &self,
        request: BackupRequest,
        progress: &Arc<Progress>,
        cancel: &Cancel,
    ) -> Result<Draft, CopyDisksError> {
        let names =
            || request.disks.iter().map(|(name, _)| name).chain(request.streams.iter().map(|(name, _)| name));
        if names().next().is_none() || names().collect::<HashSet<_>>().len() < names().count() {
            return Err(CopyDisksError::DiskNames);
        }
        let began = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(CopyDisksError::Cancelled),
            lease = self.acquire_lease() => lease?,
        };
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(CopyDisksError::Cancelled),
            contents = self.copy_all(request, progress, began) => contents,
            lost = lease::keep_renewing(&self.shared.store, began) => match lost {
                Ok(()) => Err(CopyDisksError::LeaseExpired),
                Err(error) => Err(error.into()),
            },
        };
        match outcome {
            Ok(contents) => Ok(Draft { contents, lease: began.to_string() }),
            Err(error) => {
                // A lease that cannot be ended now expires.
                let ending = lease::end(&self.shared.store, began);
                let _ = tokio::time::timeout(LEASE_END_TIMEOUT, ending).await;
                Err(error)
            }
        }
    }

    /// Acquires a lease, after checking that the repository is still there.
    async fn acquire_lease(&self) -> Result<LeaseId, CopyDisksError> {
        self.probe().await.map_err(CopyDisksError::RepositoryGone)?;
        Ok(lease::acquire(&self.shared.store).await?)
    }

    /// Copies under a lease that is held already.
    async fn copy_all(
        &self,
        mut request: BackupRequest,
        progress: &Arc<Progress>,
        lease: LeaseId,
    ) -> Result<SnapshotContents, CopyDisksError> {
        let (session, disks, stored) = self.copy_disks(&mut request, progress, NewPacks::Store).await?;
        self.check_packs_are_listed(&stored, lease).await?;
        let stats = progress.stats();
        info!(?stats, "disks copied");
        let definition =
            Private::encrypt(&session.keys, &request.definition).map_err(CopyDisksError::Keys)?;
        let BackupRequest { machine, taken_at_unix_ms, tags, parent, consistency, .. } = request;
        let stands_in = false;
        Ok(SnapshotContents {
            machine,
            taken_at_unix_ms,
            tags,
            disks,
            definition,
            parent,
            consistency,
            stats,
            stored_as_failover: stands_in,
        })
    }

    /// Reads everything as a backup does, and returns what it would store. Writes nothing. Where more than 128 GiB are new
    /// and duplicated, the estimate may be a little too high.
    ///
    /// # Errors
    /// As [`Repository::copy`].
    #[instrument(name = "repository.estimate", skip_all, fields(machine = request.machine))]
    pub async fn estimate(
        &self,
        mut request: BackupRequest,
        progress: &Arc<Progress>,
        cancel: &Cancel,
    ) -> Result<BackupStats, CopyDisksError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(CopyDisksError::Cancelled),
            read = self.copy_disks(&mut request, progress, NewPacks::Discard) => read.map(|_| progress.stats()),
        }
    }

    /// Reads all disks and streams, and stores what is new of them, or drops it.
    async fn copy_disks(
        &self,
        request: &mut BackupRequest,
        progress: &Arc<Progress>,
        new_packs: NewPacks,
    ) -> Result<(Arc<Session>, Vec<DiskRecord>, Vec<StoredPack>), CopyDisksError> {
        let condemned = condemned::all_packs(&self.shared.store, &self.shared.keys()).await?;
        self.refresh().await?;
        let parent = match request.parent {
            Some(id) => self.usable_parent(id, &condemned).await?,
            None => None,
        };
        progress.expect_bytes(request.disks.iter().map(|(_, source)| source.size_bytes()).sum());
        let (session, packs) = Session::begin(Arc::clone(&self.shared), Arc::clone(progress), condemned);
        // Workers may wait for a pack permit on threads that no dropped future can stop.
        let _wakes_waiting_workers = session.stop_on_drop();
        let copying = async {
            let mut disks = Vec::with_capacity(request.disks.len());
            for (name, source) in &request.disks {
                let parent = match parent.as_ref().and_then(|snapshot| snapshot.disk(name)) {
                    Some(record) if record.kind == RecordKind::Disk => {
                        ParentDisk::load(&session, record, source.size_bytes())
                            .await
                            .map_err(|source| CopyDisksError::ParentRecipe { disk: name.clone(), source })?
                    }
                    _ => None,
                };
                let copied = match disk::copy(&session, name, source.as_ref(), parent).await {
                    Err(wrong @ CopyDisksError::DirtyBitmapMissedChange { .. }) => {
                        warn!(error = %wrong, "the disk is read whole");
                        raise(&progress.bitmaps_rejected, 1);
                        disk::copy(&session, name, source.as_ref(), None).await
                    }
                    copied => copied,
                };
                disks.push(copied?);
            }
            for (name, source) in std::mem::take(&mut request.streams) {
                disks.push(stream::copy(&session, &name, source).await?);
            }
            // The uploads end when the last packs have been handed over.
            session.finish().await.map_err(CopyDisksError::from)?;
            Ok::<_, CopyDisksError>(disks)
        };
        let uploading = async {
            match new_packs {
                NewPacks::Store => upload::all(&session, packs).await.map_err(CopyDisksError::Upload),
                NewPacks::Discard => Ok(upload::none(&session, packs).await),
            }
        };
        let (disks, stored) = futures::future::try_join(copying, uploading).await?;
        Ok((session, disks, stored))
    }

    /// Checks that the store lists every pack that it confirmed, with its length.
    async fn check_packs_are_listed(
        &self,
        stored: &[StoredPack],
        lease: LeaseId,
    ) -> Result<(), CopyDisksError> {
        if stored.is_empty() {
            return Ok(());
        }
        let listed = index::list_packs(&self.shared.store).await?;
        for StoredPack { kind, id, bytes } in stored {
            if listed.get(id).is_none_or(|found| found.bytes != *bytes) {
                // A collection expired our lease and deleted it: not the store's fault.
                if lease::state(&self.shared.store, lease).await? != LeaseState::Held {
                    return Err(CopyDisksError::LeaseExpired);
                }
                return Err(CopyDisksError::UploadedPackLost {
                    pack: names::pack(*kind, *id).to_string(),
                    bytes: *bytes,
                });
            }
        }
        Ok(())
    }

    /// The parent, unless a collection may delete something that it needs: then all disks are read whole.
    async fn usable_parent(
        &self,
        id: SnapshotId,
        condemned: &HashSet<PackId>,
    ) -> Result<Option<Snapshot>, CopyDisksError> {
        let parent = self.snapshot(id).await.map_err(CopyDisksError::Parent)?;
        let in_quarantine = self.shared.store.list(&names::folder(names::QUARANTINE)).await?;
        if !condemned.is_empty() || !in_quarantine.is_empty() {
            let intact = collect::are_intact(&self.shared, &parent.contents.disks).await;
            if !intact
                .map_err(|source| CopyDisksError::ParentRecipe { disk: parent_disks(&parent), source })?
            {
                info!(%id, "the parent needs packs that are lost or being collected: all disks are read whole");
                return Ok(None);
            }
        }
        Ok(Some(parent))
    }
}

fn parent_disks(parent: &Snapshot) -> String {
    let names: Vec<_> = parent.contents.disks.iter().map(|disk| disk.name.as_str()).collect();
    names.join(", ")
}
