//! Which packs the snapshots need, and how much of each.

use std::collections::{HashMap, HashSet};

use super::CollectError;
use crate::Damage;
use crate::format::blob::BlobId;
use crate::format::pack::{ENTRY_BYTES, PackId};
use crate::format::snapshot::{DiskRecord, SnapshotId};
use crate::index::{Index, IndexError, Location, RowNumber};
use crate::repository::Repository;
use crate::restore::ReadError;
use crate::snapshots::SnapshotError;
use crate::walk::Walk;

/// The disks of every snapshot.
pub(super) type Disks = Vec<(SnapshotId, Vec<DiskRecord>)>;

/// What the snapshots need of an index that nobody changes.
pub(super) struct Marks {
    /// One bit for each row.
    rows: Vec<u64>,
    /// Bytes that are needed of each pack that is needed at all: of its blobs, and of their entries in its directory.
    live_bytes: HashMap<PackId, u64>,
}

impl Marks {
    fn new(index: &Index) -> Marks {
        Marks { rows: vec![0; index.rows().div_ceil(64) as usize], live_bytes: HashMap::new() }
    }

    fn add(&mut self, row: RowNumber, place: &Location) {
        let (word, bit) = (&mut self.rows[(row.0 / 64) as usize], 1 << (row.0 % 64));
        if *word & bit == 0 {
            *word |= bit;
            *self.live_bytes.entry(place.pack.id).or_default() +=
                u64::from(place.entry.sealed_bytes) + ENTRY_BYTES as u64;
        }
    }

    /// Marks the copy of a blob that is to stay. Of several, one that is not condemned is enough; where all are
    /// condemned, all stay. Says whether there is any.
    fn mark(&mut self, index: &Index, condemned: &HashSet<PackId>, id: &BlobId) -> Result<bool, IndexError> {
        if let Some((row, place)) = index.find_outside(condemned, id)? {
            self.add(row, &place);
            return Ok(true);
        }
        let all = index.find_all(id)?;
        all.iter().for_each(|(row, place)| self.add(*row, place));
        Ok(!all.is_empty())
    }

    pub(super) fn needs(&self, pack: &PackId) -> bool {
        self.live_bytes.contains_key(pack)
    }

    /// Bytes of a pack's blobs and their entries that are needed.
    pub(super) fn live_bytes(&self, pack: &PackId) -> u64 {
        self.live_bytes.get(pack).copied().unwrap_or(0)
    }

    /// Whether this very copy is needed.
    pub(super) fn is_marked(&self, row: RowNumber) -> bool {
        self.rows[(row.0 / 64) as usize] & (1 << (row.0 % 64)) != 0
    }
}

/// Walks all disks, in a repository whose index is frozen.
pub(super) async fn needed(
    repository: &Repository,
    frozen: &Repository,
    disks: Disks,
    condemned: &HashSet<PackId>,
) -> Result<Marks, CollectError> {
    const HELD: &str = "nobody panics while holding the index";
    let shared = &frozen.shared;
    let mut walk = Walk::new(shared);
    let mut marks = Marks::new(&shared.index.read().expect(HELD));
    for (snapshot, disks) in disks {
        for record in disks {
            let mut outcome = Ok(None);
            let walked = walk
                .disk(&record, &mut |id| {
                    let index = shared.index.read().expect(HELD);
                    match (&outcome, marks.mark(&index, condemned, &id)) {
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
                _ => return Err(CollectError::Broken { snapshot, source: broken }),
            }
        }
    }
    Ok(marks)
}
