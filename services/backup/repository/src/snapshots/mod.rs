//! Snapshots: finding, listing, holding and forgetting them.

mod anomalies;
mod catalogue;
mod forget;
pub(crate) mod holds;

use std::path::Path;

use futures::{StreamExt, TryStreamExt};
use tokio::task::spawn_blocking;
use tracing::instrument;

use self::catalogue::{CachedSnapshot, SnapshotCache};
pub use self::forget::{ForgetError, ForgetPlan};
pub use self::holds::{Hold, HoldError};

use crate::damage::Damage;
use crate::format::snapshot::{Snapshot, SnapshotContents, SnapshotId};
use crate::format::{encrypted, packed};
use crate::repository::Repository;
use crate::restore::ReadError;
use crate::store::{StoreError, Version, names};

/// Snapshots read at the same time when they are listed.
const SNAPSHOT_READS_IN_FLIGHT: usize = 16;

/// The id of a listed snapshot, and its version where it was asked for.
type Versioned = (SnapshotId, Option<Version>);

const NO_PANIC: &str = "reading a local file does not panic";

fn in_order(mut snapshots: Vec<Snapshot>) -> Vec<Snapshot> {
    snapshots.sort_by_key(|snapshot| (snapshot.contents.taken_at_unix_ms, snapshot.id));
    snapshots
}

/// A snapshot could not be found, listed or removed.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no such snapshot.
    #[error("there is no snapshot {asked}")]
    Unknown {
        /// What was asked for.
        asked: String,
    },
    /// Several snapshots begin like this.
    #[error("{count} snapshots begin with {prefix}: give more characters")]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// How many there are.
        count: usize,
    },
    /// It has a hold.
    #[error("snapshot {id} is held: release it first")]
    Held {
        /// The snapshot.
        id: SnapshotId,
    },
    /// The object is damaged or was swapped.
    #[error("could not read snapshot {id}")]
    Damaged {
        /// The snapshot.
        id: SnapshotId,
        /// What is wrong with it.
        #[source]
        source: Damage,
    },
    /// The store failed.
    #[error("could not reach the snapshots")]
    Store(#[from] StoreError),
}

/// Selects one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The one taken last of a machine.
    Latest {
        /// The machine.
        machine: String,
    },
    /// The one of that id.
    Id(SnapshotId),
    /// The only one whose id begins like this.
    Prefix(String),
}

impl Repository {
    /// All snapshots, oldest first.
    ///
    /// # Errors
    /// When the store fails or a snapshot cannot be read.
    #[instrument(name = "repository.snapshots", skip_all)]
    pub async fn snapshots(&self) -> Result<Vec<Snapshot>, SnapshotError> {
        if self.shared.store.lists_versions() {
            return self.snapshots_as_they_are().await;
        }
        let names = async { Ok(self.snapshot_ids().await?.into_iter().map(|id| (id, None)).collect()) };
        self.read_or_known(names, &|_, _| true).await
    }

    /// All snapshots, oldest first, each as the store has it now: for collections, which delete what no snapshot needs.
    pub(crate) async fn snapshots_as_they_are(&self) -> Result<Vec<Snapshot>, SnapshotError> {
        let names = async {
            let listed = self.shared.store.versions(names::SNAPSHOTS).await?;
            Ok(listed.into_iter().map(|(id, version)| (SnapshotId::from(id), version)).collect())
        };
        self.read_or_known(names, &|known, listed| listed.is_some() && known == listed).await
    }

    /// Reads the listed snapshots, except those that are cached in a version that is good enough.
    async fn read_or_known(
        &self,
        listing: impl Future<Output = Result<Vec<Versioned>, StoreError>>,
        is_good: &(dyn Fn(&Option<Version>, &Option<Version>) -> bool + Sync),
    ) -> Result<Vec<Snapshot>, SnapshotError> {
        let Some(folder) = self.shared.cache.folder().map(Path::to_owned) else {
            let read = self.read_snapshots(listing.await?).await?;
            return Ok(in_order(read.into_iter().map(|known| known.snapshot).collect()));
        };
        let (keys, at) = (self.shared.keys(), folder.clone());
        let loading = spawn_blocking(move || SnapshotCache::load(&at, &keys));
        let listed = listing.await?;
        let mut had = loading.await.expect(NO_PANIC);
        let mut all = Vec::with_capacity(listed.len());
        let mut unread = Vec::new();
        for (id, version) in listed {
            match had.snapshots.remove(&id) {
                Some(known) if is_good(&known.version, &version) => all.push(known),
                _ => unread.push((id, version)),
            }
        }
        let new = self.read_snapshots(unread).await?;
        all.extend(new.iter().cloned());
        let keys = self.shared.keys();
        spawn_blocking(move || {
            catalogue::note(&folder, &keys, had.record_count, had.fully_read, &all, &new);
            Ok(in_order(all.into_iter().map(|known| known.snapshot).collect()))
        })
        .await
        .expect(NO_PANIC)
    }

    /// What is read is at least as new as the version that was listed before: if another has replaced it since, that version
    /// is never listed again.
    async fn read_snapshots(&self, listed: Vec<Versioned>) -> Result<Vec<CachedSnapshot>, SnapshotError> {
        let read =
            |(id, version)| async move { Ok(CachedSnapshot { snapshot: self.snapshot(id).await?, version }) };
        futures::stream::iter(listed.into_iter().map(read))
            .buffer_unordered(SNAPSHOT_READS_IN_FLIGHT)
            // One that is forgotten meanwhile is left out.
            .filter_map(async |read| match read {
                Err(SnapshotError::Unknown { .. }) => None,
                read => Some(read),
            })
            .try_collect()
            .await
    }

    /// The ids of all snapshots, without reading them.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn snapshot_ids(&self) -> Result<Vec<SnapshotId>, StoreError> {
        let ids = self.shared.store.entries(names::SNAPSHOTS).await?;
        Ok(ids.into_iter().map(SnapshotId::from).collect())
    }

    /// The snapshot of that id.
    ///
    /// # Errors
    /// When there is none, it cannot be read, or the store fails.
    pub async fn snapshot(&self, id: SnapshotId) -> Result<Snapshot, SnapshotError> {
        let name = names::entry(names::SNAPSHOTS, id.ulid());
        let object = match self.shared.store.get(&name).await {
            Ok(object) => object,
            Err(StoreError::NotFound { .. }) => {
                return Err(SnapshotError::Unknown { asked: id.to_string() });
            }
            Err(error) => return Err(error.into()),
        };
        let contents: SnapshotContents = encrypted::decrypt(&self.shared.keys(), &name, "snapshot", &object)
            .and_then(|text| packed::decode(&text, "snapshot"))
            .map_err(|source| SnapshotError::Damaged { id, source })?;
        Ok(Snapshot { id, contents })
    }

    /// The machine's definition that a snapshot holds.
    ///
    /// # Errors
    /// When this key is write-only, or the definition does not decrypt.
    pub fn definition(&self, snapshot: &Snapshot) -> Result<Vec<u8>, ReadError> {
        snapshot.contents.definition.decrypt(&self.shared.keys()).map_err(|damage| match damage {
            Damage::WriteOnlyKey(write_only) => ReadError::WriteOnly(write_only),
            damage => ReadError::Damaged(damage),
        })
    }

    /// The selected snapshot.
    ///
    /// # Errors
    /// When none or several fit, or the store fails.
    pub async fn find(&self, selector: &Selector) -> Result<Snapshot, SnapshotError> {
        match selector {
            Selector::Id(id) => self.snapshot(*id).await,
            Selector::Prefix(prefix) if prefix.is_empty() => {
                Err(SnapshotError::Unknown { asked: "with an empty id".into() })
            }
            Selector::Prefix(prefix) => {
                let wanted = prefix.to_lowercase();
                let ids = self.snapshot_ids().await?;
                let mut fitting = ids.iter().filter(|id| id.to_string().starts_with(&wanted));
                match (fitting.next(), fitting.count()) {
                    (Some(id), 0) => self.snapshot(*id).await,
                    (Some(_), more) => {
                        Err(SnapshotError::Ambiguous { prefix: prefix.clone(), count: more + 1 })
                    }
                    (None, _) => Err(SnapshotError::Unknown { asked: prefix.clone() }),
                }
            }
            Selector::Latest { machine } => {
                let snapshots = self.snapshots().await?;
                let latest = snapshots.into_iter().rfind(|s| &s.contents.machine == machine);
                let asked = || SnapshotError::Unknown { asked: format!("of machine {machine}") };
                // A removed backup may have been sealed again under its id since it was cached.
                self.snapshot(latest.ok_or_else(asked)?.id).await
            }
        }
    }

    /// Removes a snapshot; one that is gone counts as removed. What only it used stays in the store until a collection deletes
    /// it.
    ///
    /// # Errors
    /// When it is held, or the store fails.
    #[instrument(name = "repository.forget", skip(self))]
    pub async fn forget(&self, id: SnapshotId) -> Result<(), SnapshotError> {
        match self.shared.store.head(&names::entry(names::HOLDS, id.ulid())).await {
            Ok(_) => return Err(SnapshotError::Held { id }),
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.shared.store.delete(&names::entry(names::SNAPSHOTS, id.ulid())).await?)
    }
}
