//! Undeleting what was deleted or overwritten in a bucket that keeps versions.
//!
//! What was changed since a point in time becomes again what it was then: a delete marker, or another content, is undone by
//! making the version of that time the newest. Of objects written since, the first version is used, as objects are written
//! once. Nothing is removed, and no key of the repository is needed: the config itself may have been deleted.

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

/// What was undeleted, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UndeleteReport {
    /// The objects, by name.
    pub objects: Vec<String>,
}

/// Nothing, or not everything, was undeleted.
#[derive(Debug, thiserror::Error)]
pub enum UndeleteError {
    /// A folder, or another store without versions.
    #[error("only an S3 bucket with versioning keeps what was deleted")]
    NoVersions,
    /// The store failed.
    #[error("could not undelete")]
    Store(#[from] StoreError),
}

impl Store {
    /// Undeletes what was deleted or overwritten since a point in time: the config, key rosters, packs and snapshots. What
    /// collections and people deleted since comes back, too, and a collection removes it again.
    ///
    /// # Errors
    /// When the store keeps no versions, or fails; what was undeleted until then stays.
    #[instrument(name = "store.undelete", skip(self, progress))]
    pub async fn undelete(
        &self,
        since: DateTime<Utc>,
        progress: &Arc<Progress>,
        dry_run: bool,
    ) -> Result<UndeleteReport, UndeleteError> {
        let s3 = self.s3().ok_or(UndeleteError::NoVersions)?;
        let mut lost = Vec::new();
        for place in names::essential() {
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
            return Ok(UndeleteReport { objects });
        }
        progress.expect_bytes(lost.iter().map(|(_, version)| version.bytes).sum());
        // The config comes first of all: it says how all are to be locked.
        let config = names::config();
        for (name, version) in lost.extract_if(.., |(name, _)| *name == config) {
            self.restore_version(&name, &version, progress).await?;
        }
        let store = self.clone().with_object_lock(self.lock_of_config().await?.or(self.lock));
        if let Some(lock) = store.lock {
            store.lock(&config, lock.from(store.now())).await?;
        }
        futures::stream::iter(&lost)
            .map(|(name, version)| store.restore_version(name, version, progress))
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<()>()
            .await?;
        info!(objects = objects.len(), "undeleted");
        Ok(UndeleteReport { objects })
    }

    async fn restore_version(
        &self,
        name: &Path,
        version: &Version,
        progress: &Progress,
    ) -> Result<(), StoreError> {
        let s3 = self.s3().expect("only a store on S3 undeletes");
        let lock_until = self.lock.map(|lock| lock.from(self.now()));
        self.bounded("undelete", name, s3.restore_version(name, &version.id, lock_until)).await?;
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
