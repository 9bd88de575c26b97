//! Visiting every blob that a disk needs: its recipe and its chunks.

use std::collections::HashSet;
use std::sync::Arc;

use crate::format::recipe::{LEAVES_PER_PAGE, Piece};
use crate::format::snapshot::{DiskRecord, RecordKind};
use crate::ids::BlobId;
use crate::restore::{ReadError, fetch};
use crate::shared::Shared;

/// A walk over many disks that visits each page and leaf once: disks of one machine share nearly all of them.
pub(crate) struct RecipeWalk<'a> {
    shared: &'a Arc<Shared>,
    visited: HashSet<BlobId>,
}

impl<'a> RecipeWalk<'a> {
    pub(crate) fn new(shared: &'a Arc<Shared>) -> RecipeWalk<'a> {
        RecipeWalk { shared, visited: HashSet::new() }
    }

    /// Calls `each` with the ids of all blobs that a disk needs and that this walk has not visited before; a chunk may come
    /// more than once.
    pub(crate) async fn disk(
        &mut self,
        record: &DiskRecord,
        each: &mut (dyn FnMut(BlobId) + Send),
    ) -> Result<(), ReadError> {
        if !self.visited.insert(record.root) {
            return Ok(());
        }
        each(record.root);
        if record.kind == RecordKind::Stream {
            return self.stream(record, each).await;
        }
        let disk = fetch::disk(self.shared, record).await?;
        for (page, id) in disk.pages.iter().enumerate() {
            let Some(id) = id else { continue };
            if !self.visited.insert(*id) {
                continue;
            }
            each(*id);
            let mut leaves = fetch::page(self.shared, &disk, page as u64).await?;
            for leaf in &mut leaves {
                match leaf {
                    Some(id) if self.visited.insert(*id) => each(*id),
                    _ => *leaf = None,
                }
            }
            let first = (page * LEAVES_PER_PAGE) as u64;
            for (_, pieces) in fetch::leaves(self.shared, &disk, first, &leaves).await? {
                for piece in pieces {
                    if let Piece::Chunk { id, .. } = piece {
                        each(id);
                    }
                }
            }
        }
        Ok(())
    }

    async fn stream(
        &mut self,
        record: &DiskRecord,
        each: &mut (dyn FnMut(BlobId) + Send),
    ) -> Result<(), ReadError> {
        let stream = fetch::stream(self.shared, record).await?;
        for leaves in stream.leaves.chunks(LEAVES_PER_PAGE) {
            let new = leaves.iter().filter(|(_, id)| self.visited.insert(*id)).copied().collect::<Vec<_>>();
            new.iter().for_each(|(_, id)| each(*id));
            for piece in fetch::stream_leaves(self.shared, &new).await?.into_iter().flatten() {
                if let Piece::Chunk { id, .. } = piece {
                    each(id);
                }
            }
        }
        Ok(())
    }
}
