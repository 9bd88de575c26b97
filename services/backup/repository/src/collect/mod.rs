//! Collection: deleting packs that nothing needs, while backups run.
//!
//! Promises: a blob that a sealed snapshot names, or that a running backup relies on, is never deleted, whatever is
//! interleaved with what, however many collections run, and whenever one of them dies, stalls or comes late. What is
//! needed of packs that are mostly waste is put together in new ones, within a budget of bytes.
//!
//! ```text
//!   collection                                         backup
//!   1  mark: packs that no snapshot needs              a  take a lease
//!   2  rewrite sparse packs; condemn all: write a list b  read the lists: rely on no condemned pack,
//!   3  note the leases held now                           not even through the parent
//!   4  wait (in this run or a later one)               c  copy, beating
//!      until those leases have ended                   d  seal: the snapshot object
//!   5  mark again, from the snapshots there are now    e  is the lease still there? then end it;
//!   6  delete what is still not needed                    else look whether every blob is still there and
//!   7  remove a list when its last pack is gone           not condemned, and unseal if not
//! ```
//!
//! Why it holds: a backup that read the lists before a list was written took its lease before, so the list waits for
//! it and its snapshot is seen at 5. One that read them after never relies on the packs of the list, because a pack
//! stays on its list until it is gone. So after 4 nothing can begin to need them, and what 5 finds unneeded stays so
//! for ever. A blob with copies in several packs keeps one: 5 finds copies outside of all lists first, and where
//! there is none, every condemned copy stays, until a later run copies it at 2.
//!
//! A holder that was silent for too long is taken for dead before 5; if it lives after all, it finds out at (e).
//!
//! What a run finds out is remembered in the cache folder, so that the next one reads and looks up only what is new:
//!
//! ```text
//!   which disks a snapshot has      as long as the store lists the same version of its object    see crate::snapshots
//!   where the blobs lie that a      as long as each of these packs is listed, named by the       see memory.rs
//!   piece of a recipe names         index, and on no list of condemned packs
//! ```
//!
//! That does not touch the argument: a piece has the name of its content, and a pack never changes and its name never
//! comes again, so a note that was true once is true for ever, however old the file; whether the packs are there and may
//! be relied on is asked anew by each 1 and 5. So what is marked through notes is a copy of everything needed, outside of
//! all lists, as it is without them. Each note is authenticated with the repository's keys; one that is missing, damaged,
//! of another repository, or names a pack that went costs reading that piece again. Nothing is deleted because something
//! is not noted, and nothing is noted by a run that found anything amiss. What is read no more is not checked any more:
//! that a recipe can still be read is for verifications to find out.
//!
//! Relied on is only that the store lists what was written before, and that a write which its sender gave up does not
//! arrive after the silence that makes its sender dead.

pub(crate) mod condemned;
mod copies;
mod leftovers;
mod locks;
mod mark;
mod marks;
mod memory;
mod notes;
mod rewrite;
mod shards;
mod trace;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tracing::{info, instrument};

use self::marks::Marks;
use self::memory::Memory;
use crate::format::pack::PackId;
use crate::format::snapshot::{DiskRecord, SnapshotId};
use crate::index::{self, IndexError, ListedPack};
use crate::lease;
use crate::repository::{OpenError, Repository, Shared};
use crate::restore::ReadError;
use crate::snapshots::SnapshotError;
use crate::store::{StoreError, names};
use crate::walk::Walk;
use crate::{Cancel, Damage};

/// When packs and leases may be taken for abandoned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectSettings {
    /// Packs younger than this are left alone: a draft that waits to be sealed after a crash finds its packs.
    pub pack_age_min: Duration,
    /// A backup that has shown no life for this long counts as dead.
    pub silence_max: Duration,
    /// A pack is rewritten when less than this part of it is needed.
    pub rewrite_below_percent: u8,
    /// No more bytes than this are rewritten in one run; 0 rewrites nothing.
    pub rewrite_bytes_max: u64,
    /// Packs of earlier epochs are rewritten, too, so that keys given out before open nothing any more.
    pub reseal_old_epochs: bool,
}

impl Default for CollectSettings {
    /// A day for packs, a quarter of an hour for leases, which beat every minute; 4 GiB of packs that are needed to
    /// less than 70 % are rewritten.
    fn default() -> CollectSettings {
        CollectSettings {
            pack_age_min: Duration::from_hours(24),
            silence_max: Duration::from_mins(15),
            rewrite_below_percent: 70,
            rewrite_bytes_max: 4 * 1024 * 1024 * 1024,
            reseal_old_epochs: false,
        }
    }
}

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// Packs in the store when it began.
    pub packs: u64,
    /// Packs newly found to be needed by nothing, or rewritten.
    pub packs_condemned: u64,
    /// Packs, sparse or condemned, of which what is needed was copied into new ones.
    pub packs_rewritten: u64,
    /// Bytes so copied.
    pub bytes_rewritten: u64,
    /// Packs deleted.
    pub packs_deleted: u64,
    /// Their bytes.
    pub bytes_deleted: u64,
    /// Condemned packs that wait for backups under way to end, or that turned out to be needed.
    pub packs_waiting: u64,
    /// Packs and snapshots whose locks were made to last longer.
    pub locks_extended: u64,
}

/// A collection ended early. What it had begun, the next one carries on.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// A snapshot needs what is not there: nothing is deleted until that is understood.
    #[error("snapshot {snapshot} cannot be read whole, so nothing is deleted (verify, or rebuild the index)")]
    Broken {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is wrong.
        #[source]
        source: ReadError,
    },
    /// A snapshot object is damaged: what it needs is unknown.
    #[error("snapshot {snapshot} is damaged, so nothing is deleted (verify, then forget or restore it)")]
    Damaged {
        /// The snapshot.
        snapshot: SnapshotId,
        /// What is wrong.
        #[source]
        source: Damage,
    },
    /// The repository is not where it was opened, as when a disk was unmounted. Nothing was written.
    #[error("the repository is not there any more")]
    NotThere(#[source] OpenError),
    /// What is needed of a sparse pack could not be read. Nothing of it was lost.
    #[error("could not rewrite a sparse pack")]
    Rewrite(#[from] ReadError),
    /// The index could not be read.
    #[error("could not read what the packs hold")]
    Index(#[from] IndexError),
    /// The store failed.
    #[error("could not collect in the store")]
    Store(#[from] StoreError),
    /// It was told to stop.
    #[error("the collection was cancelled")]
    Cancelled,
}

/// What is there and what is needed of it, at one moment.
struct Needed {
    packs: HashMap<PackId, ListedPack>,
    marks: Marks,
    /// The repository as the marks see it.
    frozen: Repository,
}

impl Repository {
    /// Deletes packs that nothing needs. Packs found now are deleted now when no backup is under way, else by a
    /// later run. May run at any time, beside anything.
    ///
    /// # Errors
    /// When the store fails, a snapshot cannot be read whole, or it is cancelled.
    #[instrument(name = "repository.collect", skip(self, cancel))]
    pub async fn collect(
        &self,
        settings: CollectSettings,
        cancel: &Cancel,
    ) -> Result<CollectReport, CollectError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(CollectError::Cancelled),
            report = self.collect_all(settings) => report,
        }
    }

    /// What a collection would condemn and rewrite now. Changes nothing.
    ///
    /// # Errors
    /// When the store fails or a snapshot cannot be read whole.
    #[instrument(name = "repository.plan_collection", skip(self))]
    pub async fn plan_collection(&self, settings: CollectSettings) -> Result<CollectReport, CollectError> {
        let store = &self.shared.store;
        let now = lease::store_clock(store).await?;
        let already = condemned::all_packs(store, &self.shared.keys()).await?;
        let Needed { packs, marks, frozen } = self.needed(&already, &mut self.remembered().await).await?;
        let old_packs = old_enough(&packs, now, settings.pack_age_min);
        let unneeded = old_packs.keys().filter(|pack| !marks.needs(pack) && !already.contains(pack));
        let (mut left, mut report) = (settings.rewrite_bytes_max, CollectReport::default());
        for live_bytes in self.rewritable(&frozen, &marks, &already, &old_packs, &settings) {
            if live_bytes > left {
                break;
            }
            left -= live_bytes;
            report.packs_rewritten += 1;
            report.bytes_rewritten += live_bytes;
        }
        report.packs = packs.len() as u64;
        report.packs_condemned = unneeded.count() as u64 + report.packs_rewritten;
        report.packs_waiting = already.len() as u64;
        Ok(report)
    }

    async fn collect_all(&self, settings: CollectSettings) -> Result<CollectReport, CollectError> {
        let store = &self.shared.store;
        self.probe().await.map_err(CollectError::NotThere)?;
        let now = lease::store_clock(store).await?;
        let mut report = CollectReport::default();

        let keys = &self.shared.keys();
        let already = condemned::all_packs(store, keys).await?;
        let mut memory = self.remembered().await;
        let Needed { packs, marks, frozen } = self.needed(&already, &mut memory).await?;
        report.packs = packs.len() as u64;
        report.locks_extended = self.extend_locks(&packs, &marks).await?;
        let old_packs = old_enough(&packs, now, settings.pack_age_min);
        let unneeded = old_packs.keys().filter(|pack| !marks.needs(pack) && !already.contains(pack));
        let mut unneeded: Vec<_> = unneeded.copied().collect();
        let rewritten =
            self.rewrite_sparse(&frozen, &marks, &already, &old_packs, &settings, &mut report).await?;
        unneeded.extend(rewritten);
        if !unneeded.is_empty() {
            report.packs_condemned = unneeded.len() as u64;
            condemned::condemn(store, keys, &unneeded).await?;
        }
        self.delete_condemned(now, settings.silence_max, &mut memory, &mut report).await?;
        shards::tidy(self).await?;
        self.remove_leftovers(now, settings.silence_max).await?;
        info!(?report, "collected");
        Ok(report)
    }

    /// Deletes what may go of all lists, this run's and earlier ones'.
    async fn delete_condemned(
        &self,
        now_unix_ms: i64,
        silence_max: Duration,
        memory: &mut Arc<Memory>,
        report: &mut CollectReport,
    ) -> Result<(), CollectError> {
        let (store, keys) = (&self.shared.store, &self.shared.keys());
        let lists = condemned::all(store, keys).await?;
        if lists.is_empty() {
            return Ok(());
        }
        let mut waits = Vec::with_capacity(lists.len());
        for list in &lists {
            waits.push(condemned::waits(store, keys, list.id).await?);
        }
        let held: HashSet<_> = lease::bury(store, now_unix_ms, silence_max).await?.into_iter().collect();
        // From here on nothing can begin to need a pack of a list whose leases have ended.
        let on_lists: HashSet<_> = lists.iter().flat_map(|list| list.packs.iter().copied()).collect();
        let Needed { packs, marks, .. } = self.needed(&on_lists, memory).await?;
        for (list, waits) in lists.iter().zip(waits) {
            let blocked = waits.iter().any(|lease| held.contains(lease));
            let mut left = 0;
            for pack in &list.packs {
                let Some(listed) = packs.get(pack) else { continue };
                if blocked || marks.needs(pack) {
                    left += 1;
                    continue;
                }
                store.delete(&names::pack(listed.kind, *pack)).await?;
                report.packs_deleted += 1;
                report.bytes_deleted += listed.bytes;
            }
            report.packs_waiting += left;
            if left == 0 {
                condemned::remove(store, list.id).await?;
            }
        }
        Ok(())
    }

    /// What earlier collections found out about recipes.
    async fn remembered(&self) -> Arc<Memory> {
        let (cache, keys) = (self.shared.cache.clone(), self.shared.keys());
        let opening = spawn_blocking(move || Arc::new(Memory::open(&cache, &keys)));
        opening.await.expect("reading a file does not panic")
    }

    /// Every pack there is, and what the snapshots of this moment need.
    async fn needed(
        &self,
        condemned: &HashSet<PackId>,
        memory: &mut Arc<Memory>,
    ) -> Result<Needed, CollectError> {
        // First the snapshots, then the index: so whatever a snapshot names is in it.
        let disks = self.all_disks().await?;
        let frozen = self.frozen().await?;
        let packs = index::list_packs(&self.shared.store).await?;
        let marks = mark::needed(self, &frozen, disks, &packs, condemned, memory).await?;
        Ok(Needed { packs, marks, frozen })
    }

    /// Every disk of every snapshot there is; one forgotten meanwhile is left out.
    async fn all_disks(&self) -> Result<mark::Disks, CollectError> {
        let snapshots = self.snapshots_as_they_are().await.map_err(|error| match error {
            SnapshotError::Damaged { id, source } => CollectError::Damaged { snapshot: id, source },
            SnapshotError::Store(error) => error.into(),
            error @ (SnapshotError::Unknown { .. }
            | SnapshotError::Ambiguous { .. }
            | SnapshotError::Held { .. }) => unreachable!("a listing asks for nothing by name: {error}"),
        })?;
        Ok(snapshots.into_iter().map(|snapshot| (snapshot.id, snapshot.contents.disks)).collect())
    }
}

/// Packs that are no younger than `age_min`.
fn old_enough(
    packs: &HashMap<PackId, ListedPack>,
    now_unix_ms: i64,
    age_min: Duration,
) -> HashMap<PackId, ListedPack> {
    let limit = now_unix_ms.saturating_sub(age_min.as_millis().try_into().unwrap_or(i64::MAX));
    let old = packs.iter().filter(|(_, listed)| listed.written_unix_ms <= limit);
    old.map(|(pack, listed)| (*pack, *listed)).collect()
}

/// Whether every blob that some disks need lies in a pack that is there and on no list. Asked by who has no lease
/// that was held all the while.
pub(crate) async fn stands(shared: &Arc<Shared>, disks: &[DiskRecord]) -> Result<bool, ReadError> {
    let condemned = condemned::all_packs(&shared.store, &shared.keys()).await?;
    let seen = Repository { shared: Arc::clone(shared) }.frozen().await?.shared;
    let mut walk = Walk::new(&seen);
    let mut all_stand = Ok(true);
    for record in disks {
        let walked = walk
            .disk(record, &mut |id| {
                let index = seen.index.read().expect("nobody panics while holding the index");
                if let Ok(true) = all_stand {
                    all_stand = index.contains_outside(&condemned, &id);
                }
            })
            .await;
        match walked {
            Ok(()) => {}
            // A recipe that is gone cannot be walked.
            Err(ReadError::Damaged(Damage::BlobMissing { .. })) => return Ok(false),
            Err(ReadError::Pack { source: Damage::Missing { .. }, .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(all_stand?)
}

#[cfg(test)]
mod tests;
