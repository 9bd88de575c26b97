//! Collection: deleting packs that nothing needs, while backups run.
//!
//! Promises: a blob that a sealed snapshot refers to, or that a running backup relies on, is never deleted, whatever
//! interleaves, however many collections run, and whenever one of them dies, stalls or is late. Needed blobs of packs
//! that are mostly waste are copied into new packs, within a budget of bytes. (restic: prune; borg: compact.)
//!
//! ```text
//!   collection                                         backup
//!   1  mark: packs that no snapshot needs              a  acquire a lease
//!   2  rewrite sparse packs; condemn all: write a list b  read the lists: rely on no condemned pack,
//!   3  note the leases held now                           not even through the parent
//!   4  wait (in this run or a later one)               c  copy, renewing the lease
//!      until those leases have ended                   d  seal: the snapshot object
//!   5  mark again, from the snapshots there are now    e  is the lease still held? then end it;
//!   6  delete what is still not needed                    else check that every blob is still there and
//!   7  remove a list when its last pack is gone           not condemned, and remove the snapshot if not
//! ```
//!
//! Why this is safe: a backup that read the lists before a list was written acquired its lease before, so the list waits
//! for it and its snapshot is seen at 5. One that read them after never relies on the packs of the list, because a pack
//! stays on its list until it is gone. So after 4 nothing can begin to need them, and what 5 finds unneeded stays so
//! for ever. A blob with copies in several packs keeps one: 5 finds copies outside of all lists first, and where
//! there is none, every condemned copy stays, until a later run copies it at 2.
//!
//! The lease of a holder without a heartbeat for too long is expired before 5; a holder that is alive finds out at (e).
//!
//! Results of a run are cached in the cache folder, so that the next one reads and looks up only what is new:
//!
//! ```text
//!   which disks a snapshot has      as long as the store lists the same version of its object    see crate::snapshots
//!   the locations of the blobs      as long as each of these packs is listed, indexed and        see needs_cache.rs
//!   piece of a recipe names         index, and on no list of condemned packs
//! ```
//!
//! The cache does not weaken this: a recipe blob is named by its content, a pack never changes and its id is never used
//! again, so an entry that was true once stays true, however old the file; whether the packs are there and usable is
//! checked again by each 1 and 5. So what is marked through the cache is a copy of everything needed, outside of all
//! lists, as it is without it. Each entry is authenticated with the repository's keys; one that is missing, damaged, of
//! another repository, or for a pack that is gone costs reading that blob again. Nothing is deleted because an entry is
//! missing, and a run that found damage writes none. Recipes that are not read are not checked: that is for `verify`.
//!
//! Assumptions: the store lists what was written before, and a write that its sender gave up does not arrive after the
//! lease timeout.

pub(crate) mod condemned;
mod copies;
mod delete;
mod intact;
mod leftovers;
mod locks;
mod mark;
mod marks;
mod needs;
mod needs_cache;
mod outcome;
mod rewrite;
mod shards;
mod trace;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tracing::{info, instrument};

use self::copies::PackStates;
pub(crate) use self::intact::are_intact;
use self::marks::LiveBlobs;
use self::needs_cache::PackReferencesCache;
pub use self::outcome::{CollectError, CollectReport};
use crate::Cancel;
use crate::ids::PackId;
use crate::index::{self, ListedPack};
use crate::lease;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::snapshots::SnapshotError;

/// When packs and leases count as abandoned, and what is rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectSettings {
    /// Packs younger than this are kept: a draft that waits to be sealed after a crash finds its packs.
    pub pack_age_min: Duration,
    /// The lease of a backup without a heartbeat for this long expires.
    pub lease_timeout: Duration,
    /// A pack is rewritten when less than this part of it is needed.
    pub rewrite_below_percent: u8,
    /// No more bytes than this are rewritten in one run; 0 rewrites nothing.
    pub rewrite_bytes_max: u64,
    /// Rewrites packs of earlier epochs, too, so that keys granted before can decrypt nothing.
    pub reencrypt_old_epochs: bool,
}

impl Default for CollectSettings {
    /// A day for packs, 15 minutes for leases, which are renewed every minute; up to 4 GiB of packs that are needed to less
    /// than 70 % are rewritten.
    fn default() -> CollectSettings {
        CollectSettings {
            pack_age_min: Duration::from_hours(24),
            lease_timeout: Duration::from_mins(15),
            rewrite_below_percent: 70,
            rewrite_bytes_max: 4 * 1024 * 1024 * 1024,
            reencrypt_old_epochs: false,
        }
    }
}

const HELD: &str = "no thread panics while holding the index";

/// The packs there are and what is needed of them, at one moment.
struct Needed {
    packs: HashMap<PackId, ListedPack>,
    marks: LiveBlobs,
    /// The repository with the index that the marks were made with.
    frozen: Repository,
}

impl Repository {
    /// Deletes packs that nothing needs. Packs found now are deleted now when no backup is running, else by a later run.
    /// Safe at any time, beside any other operation.
    ///
    /// # Errors
    /// When the store fails, a snapshot cannot be read whole, or it is cancelled.
    #[instrument(name = "repository.collect", skip(self, progress, cancel))]
    pub async fn collect(
        &self,
        settings: CollectSettings,
        progress: &Arc<Progress>,
        cancel: &Cancel,
    ) -> Result<CollectReport, CollectError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(CollectError::Cancelled),
            report = self.collect_all(settings, progress) => report,
        }
    }

    /// What a collection would condemn and rewrite now. Changes nothing.
    ///
    /// # Errors
    /// When the store fails or a snapshot cannot be read whole.
    #[instrument(name = "repository.plan_collection", skip(self, progress))]
    pub async fn plan_collection(
        &self,
        settings: CollectSettings,
        progress: &Arc<Progress>,
    ) -> Result<CollectReport, CollectError> {
        let store = &self.shared.store;
        let now = lease::store_clock(store).await?;
        let already = condemned::all_packs(store, &self.shared.keys()).await?;
        let needed = self.needed(&already, &mut self.needs_cache().await, progress).await?;
        let Needed { packs, marks, frozen } = needed;
        let old_packs = old_enough(&packs, now, settings.pack_age_min);
        let unneeded = old_packs.keys().filter(|pack| !marks.needs(pack) && !already.contains(pack));
        let sparse = self.sparse(&frozen, &marks, &already, &old_packs, &settings);
        Ok(CollectReport {
            packs: packs.len() as u64,
            packs_condemned: (unneeded.count() + sparse.len()) as u64,
            packs_rewritten: sparse.len() as u64,
            bytes_rewritten: sparse.iter().map(|pack| pack.live_bytes).sum(),
            packs_waiting: already.len() as u64,
            ..CollectReport::default()
        })
    }

    async fn collect_all(
        &self,
        settings: CollectSettings,
        progress: &Arc<Progress>,
    ) -> Result<CollectReport, CollectError> {
        let store = &self.shared.store;
        self.probe().await.map_err(CollectError::RepositoryGone)?;
        let now = lease::store_clock(store).await?;
        let mut report = CollectReport::default();

        let keys = &self.shared.keys();
        let already = condemned::all_packs(store, keys).await?;
        let mut needs_cache = self.needs_cache().await;
        let Needed { packs, marks, frozen } = self.needed(&already, &mut needs_cache, progress).await?;
        report.packs = packs.len() as u64;
        report.locks_extended = self.extend_locks(&packs, &marks).await?;
        let old_packs = old_enough(&packs, now, settings.pack_age_min);
        let unneeded = old_packs.keys().filter(|pack| !marks.needs(pack) && !already.contains(pack));
        let mut unneeded: Vec<_> = unneeded.copied().collect();
        let sparse = self.sparse(&frozen, &marks, &already, &old_packs, &settings);
        for pack in self.rewrite(sparse, &marks, progress, &mut report).await? {
            if !already.contains(&pack) {
                unneeded.push(pack);
            }
        }
        if !unneeded.is_empty() {
            report.packs_condemned = unneeded.len() as u64;
            condemned::condemn(store, keys, &unneeded).await?;
        }
        self.delete_condemned(now, settings.lease_timeout, &mut needs_cache, progress, &mut report).await?;
        shards::tidy(self).await?;
        self.remove_leftovers(now, settings.lease_timeout).await?;
        info!(?report, "collected");
        Ok(report)
    }

    /// What earlier collections cached about recipes.
    async fn needs_cache(&self) -> Arc<PackReferencesCache> {
        let (cache, keys) = (self.shared.cache.clone(), self.shared.keys());
        let opening = spawn_blocking(move || Arc::new(PackReferencesCache::open(&cache, &keys)));
        opening.await.expect("reading a file does not panic")
    }

    /// Every pack there is, and what the snapshots of this moment need.
    async fn needed(
        &self,
        condemned: &HashSet<PackId>,
        needs_cache: &mut Arc<PackReferencesCache>,
        progress: &Arc<Progress>,
    ) -> Result<Needed, CollectError> {
        // First the snapshots, then the index: so whatever a snapshot names is in it.
        let disks = self.all_disks().await?;
        let frozen = self.with_fresh_index().await?;
        let packs = index::list_packs(&self.shared.store).await?;
        let usable = PackStates::new(&frozen.shared.index.read().expect(HELD), &packs, condemned);
        let marks = mark::needed(self, &frozen, disks, Arc::new(usable), needs_cache, progress).await?;
        Ok(Needed { packs, marks, frozen })
    }

    /// Every disk of every snapshot; a snapshot forgotten meanwhile is left out.
    async fn all_disks(&self) -> Result<mark::Disks, CollectError> {
        let snapshots = self.snapshots_as_they_are().await.map_err(|error| match error {
            SnapshotError::Damaged { id, source } => CollectError::SnapshotDamaged { snapshot: id, source },
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

#[cfg(test)]
mod tests;
