//! Bringing back what was deleted or written over in a bucket that keeps versions.
//!
//! What was changed since a moment becomes again what it was then: a mark that it was deleted, or another content, is
//! undone by making the version of that moment the newest. Of what was written since, the version that was written first
//! counts, as objects are written once. Nothing is removed, and no key of the repository is needed: it may be the config
//! that was deleted.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use tracing::{info, instrument};

use super::s3::{Version, changed_since};
use super::{ObjectLock, Store, StoreError, names};
use crate::format::config::Config;
use crate::progress::Progress;

/// Objects brought back at one time.
const IN_FLIGHT: usize = 16;

/// What was brought back, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReviveReport {
    /// The objects, by name.
    pub objects: Vec<String>,
}

/// Nothing, or not everything, was brought back.
#[derive(Debug, thiserror::Error)]
pub enum ReviveError {
    /// A folder, or another store of which older versions are not to be had.
    #[error("only a bucket on S3 keeps what was deleted")]
    NoVersions,
    /// The store failed.
    #[error("could not bring back what was deleted")]
    Store(#[from] StoreError),
}

impl Store {
    /// Brings back what was deleted or written over since a moment: the config, key rosters, packs and snapshots.
    /// Collections and people delete, too: what they deleted since comes back with the rest, and a collection removes it
    /// again.
    ///
    /// # Errors
    /// When the store keeps no versions, or fails; what was brought back until then stays.
    #[instrument(name = "store.revive", skip(self, progress))]
    pub async fn revive(
        &self,
        since: DateTime<Utc>,
        progress: &Arc<Progress>,
        dry_run: bool,
    ) -> Result<ReviveReport, ReviveError> {
        let s3 = self.s3.as_ref().ok_or(ReviveError::NoVersions)?;
        let mut lost = Vec::new();
        for place in names::kept() {
            let mut pages = Vec::new();
            loop {
                let page = s3.versions(&place, pages.last());
                pages.push(self.bounded("list the versions of", &place, page).await?);
                if pages.last().is_none_or(|page| page.next.is_none()) {
                    break;
                }
            }
            let changed = changed_since(pages, since).into_iter();
            let named = changed.filter_map(|(key, version)| Some((s3.name_of(&key)?, version)));
            // A prefix is not a folder: `config` is the name of one object.
            lost.extend(named.filter(|(name, _)| *name == place || name.prefix_matches(&place)));
        }
        let objects: Vec<_> = lost.iter().map(|(name, _)| name.to_string()).collect();
        if dry_run {
            return Ok(ReviveReport { objects });
        }
        progress.expect_bytes(lost.iter().map(|(_, version)| version.bytes).sum());
        // The config comes first of all: it says how all are to be locked.
        let config = names::config();
        for (name, version) in lost.extract_if(.., |(name, _)| *name == config) {
            self.bring_back(&name, &version, progress).await?;
        }
        let store = self.clone().with_object_lock(self.lock_of_config().await?.or(self.lock));
        if let Some(lock) = store.lock {
            store.lock(&config, lock.from(store.now())).await?;
        }
        futures::stream::iter(&lost)
            .map(|(name, version)| store.bring_back(name, version, progress))
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<()>()
            .await?;
        info!(objects = objects.len(), "brought back");
        Ok(ReviveReport { objects })
    }

    async fn bring_back(
        &self,
        name: &Path,
        version: &Version,
        progress: &Progress,
    ) -> Result<(), StoreError> {
        let s3 = self.s3.as_ref().expect("whoever comes here is on S3");
        let keep = self.lock.map(|lock| lock.from(self.now()));
        self.bounded("bring back", name, s3.bring_back(name, &version.id, keep)).await?;
        progress.done(version.bytes);
        Ok(())
    }

    /// How the repository locks, by its config. Whether that is authentic is seen when the repository is opened.
    async fn lock_of_config(&self) -> Result<Option<ObjectLock>, StoreError> {
        match self.get(&names::config()).await {
            Ok(object) => Ok(Config::decode(&object).ok().and_then(|claimed| claimed.config.object_lock)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
