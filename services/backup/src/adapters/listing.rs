//! One refresh: is the repository there, and which backups does it hold?

use std::collections::BTreeMap;
use std::sync::Arc;

use backup_domain::snapshot::newest_first;
use backup_repository::{OpenError, Repository, SnapshotError, SnapshotId, StoreError};
use contract::backup::Backup;
use contract::message::with_causes;
use futures::StreamExt;

use crate::adapters::repository::{RepositoryConfig, RepositoryError};
use crate::adapters::snapshots::backup_of;

/// Snapshots read at one time when many are new.
const READS_AT_ONCE: usize = 16;

/// What a refresh found. Cloning is cheap.
#[derive(Clone)]
pub struct RepositoryListing {
    /// The open repository.
    pub repository: Repository,
    /// Its backups, newest first.
    pub backups: Arc<Vec<Backup>>,
    /// Snapshots that are damaged, each with the reason; the others are listed all the same.
    pub damaged: Vec<String>,
    /// Every snapshot that was read: it never changes, so that it is read once. `None` for those of other programs.
    read: Arc<BTreeMap<SnapshotId, Option<Backup>>>,
}

/// Why the backups cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListRepositoryError {
    /// The repository does not open.
    #[error(transparent)]
    Open(#[from] RepositoryError),
    /// It was open, and it is not there any more.
    #[error(transparent)]
    RepositoryGone(#[from] OpenError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A snapshot cannot be read.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl RepositoryListing {
    /// Lists the backups, given what the refresh before found. Only snapshots that are new are read.
    ///
    /// # Errors
    /// When the repository does not open or the store fails.
    pub async fn read(
        config: &RepositoryConfig,
        before: Option<RepositoryListing>,
    ) -> Result<RepositoryListing, ListRepositoryError> {
        let (repository, known) = match before {
            Some(before) => {
                // A folder whose disk is away would list as empty.
                before.repository.probe().await?;
                (before.repository, before.read)
            }
            None => (config.open().await?, Arc::default()),
        };
        let ids = repository.snapshot_ids().await?;
        let (old, new): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| known.contains_key(id));
        let mut read: BTreeMap<_, _> =
            old.into_iter().filter_map(|id| Some((id, known.get(&id)?.clone()))).collect();
        let mut damaged = Vec::new();
        let mut reads =
            futures::stream::iter(new).map(|id| repository.snapshot(id)).buffer_unordered(READS_AT_ONCE);
        while let Some(snapshot) = reads.next().await {
            match snapshot {
                Ok(snapshot) => drop(read.insert(snapshot.id, backup_of(&snapshot).ok())),
                // Forgotten since it was listed.
                Err(
                    SnapshotError::Unknown { .. }
                    | SnapshotError::Ambiguous { .. }
                    | SnapshotError::Held { .. },
                ) => {}
                Err(error @ SnapshotError::Store(_)) => return Err(error.into()),
                Err(error @ SnapshotError::Damaged { .. }) => damaged.push(with_causes(&error)),
            }
        }
        drop(reads);
        let backups = Arc::new(newest_first(read.values().flatten().cloned().collect()));
        Ok(RepositoryListing { repository, backups, damaged, read: Arc::new(read) })
    }
}
