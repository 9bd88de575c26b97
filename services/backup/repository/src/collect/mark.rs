//! Marking what the snapshots need: all at once where nothing is damaged, else one snapshot after the other.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::spawn_blocking;
use tracing::warn;

use super::copies::PackStates;
use super::marks::LiveBlobs;
use super::needs_cache::PackReferencesCache;
use super::trace::trace;
use super::{CollectError, HELD};
use crate::Damage;
use crate::format::snapshot::{DiskRecord, SnapshotId};
use crate::ids::BlobId;
use crate::index::{Index, IndexError};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::restore::ReadError;
use crate::snapshots::SnapshotError;
use crate::store::StoreError;
use crate::walk::RecipeWalk;

/// The disks of every snapshot.
pub(super) type Disks = Vec<(SnapshotId, Vec<DiskRecord>)>;

/// What some disks need, by an index that does not change. Results are added to the cache.
pub(super) async fn needed(
    repository: &Repository,
    frozen: &Repository,
    disks: Disks,
    packs: Arc<PackStates>,
    needs_cache: &mut Arc<PackReferencesCache>,
    progress: &Arc<Progress>,
) -> Result<LiveBlobs, CollectError> {
    let shared = &frozen.shared;
    let records = disks.iter().flat_map(|(_, records)| records);
    let roots: HashSet<_> = records.map(|record| record.root).collect();
    match trace(shared, Arc::clone(&packs), needs_cache, roots.into_iter().collect(), progress).await {
        Ok((marks, new_needs)) => {
            *needs_cache =
                spawn_blocking(move || new_needs.keep()).await.expect("writing a file does not panic");
            Ok(marks)
        }
        Err(ReadError::Index(error)) => Err(error.into()),
        Err(ReadError::Store(error)) if !matches!(error, StoreError::NotFound { .. }) => Err(error.into()),
        Err(error) => {
            warn!(%error, "a recipe cannot be followed: finding its snapshot");
            one_by_one(repository, frozen, disks, &packs).await
        }
    }
}

/// Walks every disk by itself, without the cache. Reports which snapshot cannot be read whole; one that was forgotten and
/// collected meanwhile needs nothing.
async fn one_by_one(
    repository: &Repository,
    frozen: &Repository,
    disks: Disks,
    packs: &PackStates,
) -> Result<LiveBlobs, CollectError> {
    let shared = &frozen.shared;
    let mut walk = RecipeWalk::new(shared);
    let mut marks = LiveBlobs::default();
    for (snapshot, disks) in disks {
        for record in disks {
            let mut outcome = Ok(None);
            let walked = walk
                .disk(&record, &mut |id| {
                    let index = shared.index.read().expect(HELD);
                    match (&outcome, mark(&mut marks, &index, packs, &id)) {
                        (Ok(None), Ok(false)) => outcome = Ok(Some(id)),
                        (Ok(_), Err(error)) => outcome = Err(error),
                        _ => {}
                    }
                })
                .await;
            let broken = match (walked, outcome?) {
                (Ok(()), None) => continue,
                (Ok(()), Some(id)) => ReadError::Damaged(Damage::BlobMissing { id }),
                (Err(error), _) => error,
            };
            // Forgotten and collected while we walked: then it needs nothing.
            match repository.snapshot(snapshot).await {
                Err(SnapshotError::Unknown { .. }) => {}
                _ => return Err(CollectError::SnapshotIncomplete { snapshot, source: broken }),
            }
        }
    }
    Ok(marks)
}

/// Marks the copies of a blob that must stay; false where there is none.
fn mark(marks: &mut LiveBlobs, index: &Index, packs: &PackStates, id: &BlobId) -> Result<bool, IndexError> {
    let copies = packs.copies(index, id)?;
    for place in &copies.places {
        marks.add(place.pack.id, place.slot, place.entry.encrypted_bytes);
    }
    Ok(!copies.places.is_empty())
}
