//! Which ranges of which packs to read for a set of blobs.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::ReadError;
use crate::damage::Damage;
use crate::format::pack::PackEncryptionInfo;
use crate::ids::BlobId;
use crate::index::{Index, Location};
use crate::settings::READ_BYTES_MAX;
use crate::shared::Shared;

/// Blobs closer than this are read together: the bytes between cost less than another request.
const GAP_BYTES_MAX: u64 = 256 * 1024;

/// A blob as a recipe refers to it. A malicious writer can put any length of a chunk into a recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct BlobRef {
    pub(crate) id: BlobId,
    /// Its length by its recipe; `None` for recipe blobs, whose length is not recorded.
    pub(crate) bytes: Option<u32>,
}

impl BlobRef {
    pub(crate) fn recipe(id: BlobId) -> BlobRef {
        BlobRef { id, bytes: None }
    }

    pub(crate) fn chunk(id: BlobId, bytes: u32) -> BlobRef {
        BlobRef { id, bytes: Some(bytes) }
    }

    /// Its location by the index, checked against the recipe's length.
    pub(crate) fn find(&self, index: &Index) -> Result<Location, ReadError> {
        let location = index.find(&self.id)?.ok_or(Damage::BlobMissing { id: self.id })?;
        match self.bytes {
            Some(bytes) if bytes != location.entry.raw_bytes => {
                let why = "it has another length of a chunk than the pack that holds it";
                Err(Damage::Malformed { what: "leaf", why }.into())
            }
            _ => Ok(location),
        }
    }
}

/// Blobs, each with all positions that want it.
pub(crate) type BlobPositions = HashMap<BlobRef, Vec<u64>>;

/// One blob in a range.
pub(crate) struct WantedBlob {
    pub(crate) location: Location,
    pub(crate) positions: Vec<u64>,
}

/// One request and the blobs in its answer.
pub(crate) struct PackRangeRead {
    pub(crate) pack: PackEncryptionInfo,
    pub(crate) range: Range<u64>,
    pub(crate) blobs: Vec<WantedBlob>,
}

/// Plans off the async threads: looking up many blobs takes a while.
pub(crate) async fn planned(
    shared: &Arc<Shared>,
    places: BlobPositions,
) -> Result<Vec<PackRangeRead>, ReadError> {
    let shared = Arc::clone(shared);
    spawn_blocking(move || {
        by_pack(&shared.index.read().expect("no thread panics while holding the index"), places)
    })
    .await
    .expect("planning does not panic")
}

/// Plans the reading of every blob once, in the order of the packs.
pub(crate) fn by_pack(index: &Index, places: BlobPositions) -> Result<Vec<PackRangeRead>, ReadError> {
    let mut wanted = Vec::with_capacity(places.len());
    for (asked, wanted_at) in places {
        let location = asked.find(index)?;
        wanted.push(WantedBlob { location, positions: wanted_at });
    }
    Ok(ranges(wanted))
}

/// Joins neighbours into ranges.
pub(crate) fn ranges(mut wanted: Vec<WantedBlob>) -> Vec<PackRangeRead> {
    wanted.sort_unstable_by_key(|w| (w.location.pack.id, w.location.offset));
    let mut reads: Vec<PackRangeRead> = Vec::new();
    for blob in wanted {
        let Location { pack, offset, entry, .. } = blob.location;
        let start = u64::from(offset);
        let end = start + u64::from(entry.encrypted_bytes);
        match reads.last_mut() {
            Some(read)
                if read.pack.id == pack.id
                    && start.saturating_sub(read.range.end) <= GAP_BYTES_MAX
                    && end - read.range.start <= READ_BYTES_MAX =>
            {
                // A malicious writer can make blobs in the index overlap.
                read.range.end = read.range.end.max(end);
                read.blobs.push(blob);
            }
            _ => reads.push(PackRangeRead { pack, range: start..end, blobs: vec![blob] }),
        }
    }
    reads
}
