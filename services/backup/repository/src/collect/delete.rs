//! Deleting condemned packs: 4 to 7 of the picture in the page of the folder.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::condemned;
use super::needs_cache::PackReferencesCache;
use super::{CollectError, CollectReport, Needed};
use crate::lease;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::store::names;

impl Repository {
    /// Deletes what may be deleted of all lists, this run's and earlier ones'.
    pub(super) async fn delete_condemned(
        &self,
        now_unix_ms: i64,
        lease_timeout: Duration,
        needs_cache: &mut Arc<PackReferencesCache>,
        progress: &Arc<Progress>,
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
        let held: HashSet<_> =
            lease::expire_silent(store, now_unix_ms, lease_timeout).await?.into_iter().collect();
        // From here on nothing can begin to need a pack of a list whose leases have ended.
        let on_lists: HashSet<_> = lists.iter().flat_map(|list| list.packs.iter().copied()).collect();
        let Needed { packs, marks, .. } = self.needed(&on_lists, needs_cache, progress).await?;
        for (list, waits) in lists.iter().zip(waits) {
            let blocked = waits.iter().any(|lease| held.contains(lease));
            let there = list.packs.iter().filter_map(|pack| Some((pack, packs.get(pack)?)));
            let (left, going): (Vec<_>, Vec<_>) = there.partition(|(pack, _)| blocked || marks.needs(pack));
            let named = going.iter().map(|(pack, listed)| names::pack(listed.kind, **pack));
            store.delete_all(&named.collect::<Vec<_>>()).await?;
            report.packs_deleted += going.len() as u64;
            report.bytes_deleted += going.iter().map(|(_, listed)| listed.bytes).sum::<u64>();
            report.packs_waiting += left.len() as u64;
            if left.is_empty() {
                condemned::remove(store, list.id).await?;
            }
        }
        Ok(())
    }
}
