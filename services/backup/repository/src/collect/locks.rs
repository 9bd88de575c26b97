//! Extending Object Lock: what a snapshot needs stays locked for the configured days.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;

use super::CollectError;
use super::marks::LiveBlobs;
use crate::ids::PackId;
use crate::index::ListedPack;
use crate::object_times::{Name, TimestampFolder, TimestampsById};
use crate::repository::Repository;
use crate::shared::Shared;
use crate::store::{ObjectLock, StoreError, names};

/// Locks extended at one time.
const IN_FLIGHT: usize = 16;

/// An object whose lock runs out.
struct RunsOut {
    /// The pack or snapshot.
    name: Name,
    path: Path,
}

impl Repository {
    /// Extends the locks that run out of what is needed, and returns how many.
    pub(super) async fn extend_locks(
        &self,
        packs: &HashMap<PackId, ListedPack>,
        marks: &LiveBlobs,
    ) -> Result<u64, CollectError> {
        let Shared { store, .. } = &*self.shared;
        let Some(lock) = store.object_lock() else {
            return Ok(0);
        };
        let now = store.now();
        let (running_out, known) = self.locks_that_run_out(packs, marks, lock, now).await?;
        let lock_until = lock.from(now);
        // These two are always needed.
        let always = [names::config(), names::roster(self.id(), self.shared.keys().roster())];
        for path in &always {
            store.lock(path, lock_until).await?;
        }
        let extended: Vec<Option<Name>> = futures::stream::iter(running_out)
            .map(|object| async move {
                match store.lock(&object.path, lock_until).await {
                    Ok(()) => Ok(Some(object.name)),
                    // Forgotten or deleted since it was listed.
                    Err(StoreError::NotFound { .. }) => Ok(None),
                    Err(error) => Err(error),
                }
            })
            .buffer_unordered(IN_FLIGHT)
            .try_collect()
            .await?;
        let until = lock_until.until.timestamp_millis();
        let extended: TimestampsById = extended.into_iter().flatten().map(|name| (name, until)).collect();
        let is_there = |name: &Name| known.contains_key(name);
        self.locked(&self.shared.keys()).add(&extended, is_there).await?;
        Ok(extended.len() as u64)
    }

    /// What is needed and locked for less than the days of the lock; and everything that is needed.
    async fn locks_that_run_out(
        &self,
        packs: &HashMap<PackId, ListedPack>,
        marks: &LiveBlobs,
        lock: ObjectLock,
        now: DateTime<Utc>,
    ) -> Result<(Vec<RunsOut>, HashMap<Name, Path>), CollectError> {
        let store = &self.shared.store;
        let noted = self.locked(&self.shared.keys()).load().await?;
        let mut needed = HashMap::new();
        let mut running_out = Vec::new();
        let needed_packs = packs
            .iter()
            .filter(|(pack, _)| marks.needs(pack))
            .map(|(pack, listed)| (*pack.as_bytes(), names::pack(listed.kind, *pack)));
        let snapshots = store.list(&names::folder(names::SNAPSHOTS)).await?;
        let snapshots = snapshots.into_iter().filter_map(|listed| {
            let id = names::entry_id(&listed.path)?;
            Some((id.to_bytes(), listed.path))
        });
        for (name, path) in needed_packs.chain(snapshots) {
            // One without a stored time is locked once: another program may have written it without a lock.
            let until = noted.get(&name).and_then(|until| DateTime::from_timestamp_millis(*until));
            if until.is_none_or(|until| lock.runs_out(until, now)) {
                running_out.push(RunsOut { name, path: path.clone() });
            }
            needed.insert(name, path);
        }
        Ok((running_out, needed))
    }

    fn locked<'a>(&'a self, keys: &'a crate::keys::Keys) -> TimestampFolder<'a> {
        TimestampFolder {
            store: &self.shared.store,
            keys,
            folder: names::LOCKED,
            object_name: "list of locked objects",
        }
    }
}
