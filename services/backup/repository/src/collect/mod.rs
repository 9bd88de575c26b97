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
mod delete;
mod leftovers;
mod locks;
mod mark;
mod marks;
mod memory;
mod notes;
mod outcome;
mod rewrite;
mod shards;
mod stands;
mod trace;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tracing::{info, instrument};

use self::copies::Packs;
use self::marks::Marks;
use self::memory::Memory;
pub use self::outcome::{CollectError, CollectReport};
pub(crate) use self::stands::stands;
use crate::Cancel;
use crate::ids::PackId;
use crate::index::{self, ListedPack};
use crate::lease;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::snapshots::SnapshotError;

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

const HELD: &str = "nobody panics while holding the index";

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
        let needed = self.needed(&already, &mut self.remembered().await, progress).await?;
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
        self.probe().await.map_err(CollectError::NotThere)?;
        let now = lease::store_clock(store).await?;
        let mut report = CollectReport::default();

        let keys = &self.shared.keys();
        let already = condemned::all_packs(store, keys).await?;
        let mut memory = self.remembered().await;
        let Needed { packs, marks, frozen } = self.needed(&already, &mut memory, progress).await?;
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
        self.delete_condemned(now, settings.silence_max, &mut memory, progress, &mut report).await?;
        shards::tidy(self).await?;
        self.remove_leftovers(now, settings.silence_max).await?;
        info!(?report, "collected");
        Ok(report)
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
        progress: &Arc<Progress>,
    ) -> Result<Needed, CollectError> {
        // First the snapshots, then the index: so whatever a snapshot names is in it.
        let disks = self.all_disks().await?;
        let frozen = self.frozen().await?;
        let packs = index::list_packs(&self.shared.store).await?;
        let standing = Packs::new(&frozen.shared.index.read().expect(HELD), &packs, condemned);
        let marks = mark::needed(self, &frozen, disks, Arc::new(standing), memory, progress).await?;
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

#[cfg(test)]
mod tests;
