//! Bringing back what was deleted or written over in a bucket that keeps versions.
//!
//! Every object of a repository is written once. So of each the version that was written first is the one that counts,
//! and whatever came after it, a mark that it was deleted or another content, is undone by making the first the newest.
//! Nothing is removed, and no key of the repository is needed: it may be the config that was deleted.

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use tracing::{info, instrument};

use super::{Store, StoreError, names};
use crate::format::config::Config;

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
    /// Brings back what was deleted or written over since a moment, or ever: the config, key rosters, packs and
    /// snapshots. Collections and people delete, too: what they deleted comes back with the rest, and a collection
    /// removes it again.
    ///
    /// # Errors
    /// When the store keeps no versions, or fails; what was brought back until then stays.
    #[instrument(name = "store.revive", skip(self))]
    pub async fn revive(
        &self,
        since: Option<DateTime<Utc>>,
        dry_run: bool,
    ) -> Result<ReviveReport, ReviveError> {
        let s3 = self.s3.as_ref().ok_or(ReviveError::NoVersions)?;
        let mut lost = Vec::new();
        for place in names::kept() {
            let found = self.bounded("list the versions of", &place, s3.versions(&place)).await?;
            // A prefix is not a folder: `config` is the name of one object.
            let found = found.into_iter().filter(|(name, _)| *name == place || name.prefix_matches(&place));
            lost.extend(found.filter(|(_, versions)| {
                versions.changed.is_some_and(|changed| since.is_none_or(|since| changed >= since))
            }));
        }
        let objects = lost.iter().map(|(name, _)| name.to_string()).collect();
        if dry_run {
            return Ok(ReviveReport { objects });
        }
        // The config comes first of all: it says how the others are to be locked.
        lost.sort_by_key(|(name, _)| *name != names::config());
        let mut store = self.clone();
        for (name, versions) in lost.extract_if(.., |(name, _)| *name == names::config()) {
            self.bring_back(&name, &versions.first).await?;
        }
        store.lock = store.lock_of_config().await?.or(self.lock);
        futures::stream::iter(&lost)
            .map(|(name, versions)| store.bring_back(name, &versions.first))
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<()>()
            .await?;
        info!(objects = lost.len(), "brought back");
        Ok(ReviveReport { objects })
    }

    async fn bring_back(&self, name: &Path, version: &str) -> Result<(), StoreError> {
        let s3 = self.s3.as_ref().expect("whoever comes here is on S3");
        let keep = self.lock.map(|lock| lock.from(self.now()));
        self.bounded("bring back", name, s3.bring_back(name, version, keep)).await
    }

    /// How the repository locks, by its config. Whether that is authentic is seen when the repository is opened.
    async fn lock_of_config(&self) -> Result<Option<super::ObjectLock>, StoreError> {
        match self.get(&names::config()).await {
            Ok(object) => Ok(Config::decode(&object).ok().and_then(|claimed| claimed.config.object_lock)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
