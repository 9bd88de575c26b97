//! Backup: copy the disks, then seal.
//!
//! Promises: [`Repository::copy`] leaves nothing but packs and index shards until its [`Draft`] is sealed;
//! [`Repository::seal`] is one create-if-absent write, and doing it again with the same draft and id changes
//! nothing. A draft can be written down and sealed by another process.
//!
//! ```text
//!   source ──page plan──> segments in flight (memory bound) ──> worker threads: cut, hash, look up,
//!                                                              compress, seal into the open pack
//!   uploads in flight (memory bound) <── full packs, at most as many as have a permit
//!        │ confirmed                                   order of segments ──> leaf ids ──> pages ──> disk
//!        v
//!   index rows, shards of 256 Ki rows
//! ```
//!
//! Two bounds hold the memory: permits for packs (filled or uploading) and the number of segments in flight. A
//! worker without a pack permit waits for an upload; uploads wait for nothing but the store, so there is no circle.
//!
//! It does not know how a disk was frozen in time nor who ordered the backup.

mod disk;
mod packer;
mod seal;
mod session;
mod stream;
mod upload;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::{info, instrument, warn};

use crate::Cancel;
use crate::collect::{self, condemned};
use crate::format::Damage;
use crate::format::pack::PackId;
use crate::format::private::Private;
use crate::format::snapshot::{Consistency, Contents, Shape, Snapshot, SnapshotId};
use crate::index::{self, IndexError};
use crate::lease::{self, LeaseId, LeaseState};
use crate::progress::{Progress, raise};
use crate::repository::{OpenError, Repository};
use crate::restore::ReadError;
use crate::snapshots::SnapshotError;
use crate::source::{DiskSource, SourceError};
use crate::store::{StoreError, names};

use self::disk::ParentDisk;
use self::packer::Stopped;
pub use self::seal::SealError;
use self::session::Session;
pub use self::stream::StreamSource;
use self::upload::StoredPack;

/// A backup that failed ends its lease at once when the store lets it, and waits no longer than this.
const LEASE_END_TIMEOUT: Duration = Duration::from_secs(5);

/// What to back up.
pub struct BackupRequest {
    /// The machine's name.
    pub machine: String,
    /// The point in time that the sources show, in milliseconds since 1970.
    pub taken_at_unix_ms: u64,
    /// Words of the operator, kept with the snapshot.
    pub tags: Vec<String>,
    /// The disks by name. They must not change while they are read.
    pub disks: Vec<(String, Box<dyn DiskSource>)>,
    /// Byte streams by name, such as dumps of databases; each is read once, after the disks.
    pub streams: Vec<(String, StreamSource)>,
    /// The machine's definition, opaque here.
    pub definition: Vec<u8>,
    /// The snapshot that the sources' maps of changes refer to. Without it maps are ignored; a disk that the
    /// parent does not have, or has in another size, is read whole.
    pub parent: Option<SnapshotId>,
    /// The state of the guest's data.
    pub consistency: Consistency,
}

impl std::fmt::Debug for BackupRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BackupRequest({}, {} disks)", self.machine, self.disks.len())
    }
}

/// A backup whose data is stored but which does not exist yet. Can be serialized and sealed later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    contents: Contents,
    /// The lease under which it was copied; held until it is sealed.
    lease: String,
}

impl Draft {
    /// What the snapshot will say.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// Adds a word that is known only after the copy, such as how long it took.
    #[must_use]
    pub fn tagged(mut self, word: String) -> Draft {
        self.contents.tags.push(word);
        self
    }
}

/// The disks could not be copied. Nothing but unnamed packs was left behind.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
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
    /// The repository is not where it was opened, as when a disk was unmounted. Nothing was written.
    #[error("the repository is not there any more")]
    NotThere(#[source] OpenError),
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
    Contradiction {
        /// The disk.
        disk: String,
        /// Where.
        at: u64,
    },
    /// A segment that the map of changes calls unchanged has changed. The disk is then read whole.
    #[error("the map of changes of disk {disk} is wrong: the segment at byte {at} changed and is not on it")]
    LyingMap {
        /// The disk.
        disk: String,
        /// Where.
        at: u64,
    },
    /// The store lost a pack whose upload it had confirmed.
    #[error(
        "the store confirmed {pack} and does not list it with its {bytes} bytes: it does not keep what it is given"
    )]
    LyingStore {
        /// The object.
        pack: String,
        /// How long it should be.
        bytes: u64,
    },
    /// What is stored already could not be found out.
    #[error("could not find out what is stored already")]
    Index(#[from] IndexError),
    /// Packs could not be stored, or named in the index.
    #[error("could not store what was read")]
    Naming(#[source] IndexError),
    /// The store failed.
    #[error("could not reach the store")]
    Store(#[from] StoreError),
    /// A pack could not be sealed.
    #[error("could not begin a pack")]
    Keys(#[source] Damage),
    /// The storing half ended first; its own error is the one to see.
    #[error("the backup was interrupted while packs were filled")]
    Interrupted,
    /// It showed no life for so long that a collection gave up on it.
    #[error("the backup stood still for too long and was taken for dead: begin it again")]
    TakenForDead,
    /// It was told to stop.
    #[error("the backup was cancelled")]
    Cancelled,
}

/// A backup, copied and sealed in one go, failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// While copying.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// While sealing.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl From<Stopped> for CopyError {
    fn from(stopped: Stopped) -> CopyError {
        match stopped {
            Stopped::Ended => CopyError::Interrupted,
            Stopped::Index(error) => CopyError::Index(error),
            Stopped::Keys(damage) => CopyError::Keys(damage),
        }
    }
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
    ) -> Result<Draft, CopyError> {
        let names =
            || request.disks.iter().map(|(name, _)| name).chain(request.streams.iter().map(|(name, _)| name));
        if names().next().is_none() || names().collect::<HashSet<_>>().len() < names().count() {
            return Err(CopyError::DiskNames);
        }
        let began = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(CopyError::Cancelled),
            lease = self.announce() => lease?,
        };
        let outcome = tokio::select! {
            biased;
            () = cancel.cancelled() => Err(CopyError::Cancelled),
            contents = self.copy_all(request, progress, began) => contents,
            lost = lease::keep(&self.shared.store, began) => match lost {
                Ok(()) => Err(CopyError::TakenForDead),
                Err(error) => Err(error.into()),
            },
        };
        match outcome {
            Ok(contents) => Ok(Draft { contents, lease: began.to_string() }),
            Err(error) => {
                // A lease that cannot be ended now counts as dead after a while.
                let ending = lease::end(&self.shared.store, began);
                let _ = tokio::time::timeout(LEASE_END_TIMEOUT, ending).await;
                Err(error)
            }
        }
    }

    /// Takes a lease, in the right place.
    async fn announce(&self) -> Result<LeaseId, CopyError> {
        self.probe().await.map_err(CopyError::NotThere)?;
        Ok(lease::take(&self.shared.store).await?)
    }

    /// Copies under a lease that is held already.
    async fn copy_all(
        &self,
        mut request: BackupRequest,
        progress: &Arc<Progress>,
        lease: LeaseId,
    ) -> Result<Contents, CopyError> {
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
                    Some(record) if record.shape == Shape::Disk => {
                        ParentDisk::load(&session, record, source.size_bytes())
                            .await
                            .map_err(|source| CopyError::ParentRecipe { disk: name.clone(), source })?
                    }
                    _ => None,
                };
                let copied = match disk::copy(&session, name, source.as_ref(), parent).await {
                    Err(lying @ CopyError::LyingMap { .. }) => {
                        warn!(error = %lying, "the disk is read whole");
                        raise(&progress.maps_refused, 1);
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
            session.finish().await.map_err(CopyError::from)?;
            Ok::<_, CopyError>(disks)
        };
        let uploading = async { upload::all(&session, packs).await.map_err(CopyError::Naming) };
        let (disks, stored) = futures::future::try_join(copying, uploading).await?;
        self.see_that_they_are_kept(&stored, lease).await?;
        let stats = progress.stats();
        info!(?stats, "disks copied");
        let definition = Private::seal(&session.keys, &request.definition).map_err(CopyError::Keys)?;
        let BackupRequest { machine, taken_at_unix_ms, tags, parent, consistency, .. } = request;
        Ok(Contents { machine, taken_at_unix_ms, tags, disks, definition, parent, consistency, stats })
    }

    /// Looks whether the store lists every pack that it confirmed: a backup that says it is good is good.
    async fn see_that_they_are_kept(&self, stored: &[StoredPack], lease: LeaseId) -> Result<(), CopyError> {
        if stored.is_empty() {
            return Ok(());
        }
        let listed = index::list_packs(&self.shared.store).await?;
        for StoredPack { kind, id, bytes } in stored {
            if listed.get(id).is_none_or(|found| found.bytes != *bytes) {
                // It was not the store but a collection that gave up on us.
                if lease::state(&self.shared.store, lease).await? != LeaseState::Held {
                    return Err(CopyError::TakenForDead);
                }
                return Err(CopyError::LyingStore {
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
    ) -> Result<Option<Snapshot>, CopyError> {
        let parent = self.snapshot(id).await.map_err(CopyError::Parent)?;
        let in_quarantine = self.shared.store.list(&names::folder(names::QUARANTINE)).await?;
        if !condemned.is_empty() || !in_quarantine.is_empty() {
            let stands = collect::stands(&self.shared, &parent.contents.disks).await;
            if !stands.map_err(|source| CopyError::ParentRecipe { disk: parent_disks(&parent), source })? {
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
