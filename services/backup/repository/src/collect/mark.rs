//! Which packs the snapshots need.

use std::collections::HashSet;

use super::CollectError;
use crate::Damage;
use crate::format::blob::BlobId;
use crate::format::pack::PackId;
use crate::format::snapshot::{DiskRecord, SnapshotId};
use crate::index::CollectorsView;
use crate::repository::Repository;
use crate::restore::ReadError;
use crate::snapshots::SnapshotError;
use crate::walk::Walk;

/// The disks of every snapshot.
pub(super) type Disks = Vec<(SnapshotId, Vec<DiskRecord>)>;

/// Walks all disks. Of a blob with copies in several packs, one copy that is not condemned is
/// needed; where all are condemned, all are.
pub(super) async fn needed(
    repository: &Repository,
    disks: Disks,
    view: CollectorsView,
) -> Result<HashSet<PackId>, CollectError> {
    let CollectorsView { index, condemned, .. } = view;
    let condemned_packs: HashSet<_> = condemned.iter().map(|directory| directory.pack).collect();
    let shared = repository.shared.seen_through(index);
    let mut walk = Walk::new(&shared);
    let mut needed = HashSet::new();
    let mut only_condemned: HashSet<BlobId> = HashSet::new();
    for (snapshot, disks) in disks {
        for record in disks {
            let mut missing = None;
            let walked = walk
                .disk(&record, &mut |id| match shared
                    .index
                    .read()
                    .expect("nobody panics while holding the index")
                    .find(&id)
                {
                    Some(place) if condemned_packs.contains(&place.pack) => {
                        only_condemned.insert(id);
                    }
                    Some(place) => {
                        needed.insert(place.pack);
                    }
                    None => missing = Some(id),
                })
                .await;
            let broken = match (walked, missing) {
                (Ok(()), None) => continue,
                (Ok(()), Some(id)) => ReadError::Damaged(Damage::BlobMissing { id }),
                (Err(error), _) => error,
            };
            // Forgotten and collected while we walked: then it needs nothing.
            match repository.snapshot(snapshot).await {
                Err(SnapshotError::Unknown { .. }) => {}
                _ => {
                    return Err(CollectError::Broken { snapshot, source: broken });
                }
            }
        }
    }
    for directory in &condemned {
        if directory.entries.iter().any(|entry| only_condemned.contains(&entry.id)) {
            needed.insert(directory.pack);
        }
    }
    Ok(needed)
}
