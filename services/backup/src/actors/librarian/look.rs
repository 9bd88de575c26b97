//! One look at the store: is the repository there, and which backups does it hold?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use backup_domain::catalogue::newest_first;
use backup_repository::{Repository, SnapshotError, SnapshotId};
use contract::backup::Backup;
use futures::StreamExt;

use super::{Catalogue, StoreShut};
use crate::adapters::shelf::Shelf;
use crate::adapters::snapshots::{backup_of, in_words};

/// Snapshots read at one time when many are new.
const READS_AT_ONCE: usize = 16;

/// What a look at the store brought.
#[derive(Clone)]
pub(super) struct Shelved {
    pub(super) repository: Repository,
    pub(super) catalogue: Arc<Catalogue>,
    /// Every snapshot that was read: it never changes, so that it is read once. Nothing where somebody else made it.
    read: Arc<BTreeMap<SnapshotId, Option<Backup>>>,
    /// Snapshots that are damaged; they spoil neither the list nor the repository.
    pub(super) damaged: Vec<String>,
    pub(super) looked: Instant,
}

/// Looks, given what the look before brought. Only snapshots that are new are read.
pub(super) async fn look_at(shelf: &Shelf, before: Option<Shelved>) -> Result<Shelved, StoreShut> {
    let (repository, known) = match before {
        Some(before) => {
            // A folder whose disk is away would list as empty.
            before.repository.probe().await.map_err(|error| StoreShut::new(&error))?;
            (before.repository, before.read)
        }
        None => (shelf.open().await.map_err(|error| StoreShut::new(&error))?, Arc::default()),
    };
    let ids = repository.snapshot_ids().await.map_err(|error| StoreShut::new(&error))?;
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
                SnapshotError::Unknown { .. } | SnapshotError::Ambiguous { .. } | SnapshotError::Held { .. },
            ) => {}
            Err(error @ SnapshotError::Store(_)) => return Err(StoreShut::new(&error)),
            Err(error @ SnapshotError::Damaged { .. }) => damaged.push(in_words(&error)),
        }
    }
    drop(reads);
    Ok(Shelved {
        repository,
        catalogue: Arc::new(Catalogue(newest_first(read.values().flatten().cloned().collect()))),
        read: Arc::new(read),
        damaged,
        looked: Instant::now(),
    })
}
