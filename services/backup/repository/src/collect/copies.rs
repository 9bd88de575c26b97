//! Which copy of a blob is kept.

use std::collections::{HashMap, HashSet};

use crate::format::pack::{PackEncryptionInfo, PackKind};
use crate::ids::{BlobId, PackId};
use crate::index::{Index, IndexError, ListedPack, Location};

/// What is known of a pack that the index names.
#[derive(Clone, Copy)]
struct PackState {
    head: PackEncryptionInfo,
    /// As the store lists it; a pack that went since the index was loaded is not listed.
    listed: Option<ListedPack>,
    is_condemned: bool,
}

/// All packs at one moment.
pub(super) struct PackStates {
    known: HashMap<PackId, PackState>,
}

/// The copies of a blob that must stay; the first is the one to read.
pub(super) struct BlobCopies {
    pub(super) places: Vec<Location>,
    /// Whether the first is usable; then it is the only one here.
    pub(super) first_copy_usable: bool,
}

impl PackStates {
    pub(super) fn new(
        index: &Index,
        listed: &HashMap<PackId, ListedPack>,
        condemned: &HashSet<PackId>,
    ) -> PackStates {
        let known = |head: PackEncryptionInfo| {
            let (listed, is_condemned) = (listed.get(&head.id).copied(), condemned.contains(&head.id));
            (head.id, PackState { head, listed, is_condemned })
        };
        PackStates { known: index.packs().into_iter().map(known).collect() }
    }

    /// Whether a pack may be relied on: the index lists it, the store lists it, and it is not condemned.
    pub(super) fn is_usable(&self, pack: &PackId) -> bool {
        self.known.get(pack).is_some_and(|known| known.listed.is_some() && !known.is_condemned)
    }

    /// A pack that is there.
    pub(super) fn find(&self, pack: &PackId) -> Option<(PackEncryptionInfo, ListedPack)> {
        let known = self.known.get(pack)?;
        Some((known.head, known.listed?))
    }

    /// Bytes of all packs of recipes.
    pub(super) fn recipe_bytes(&self) -> u64 {
        let listed = self.known.values().filter_map(|known| known.listed);
        listed.filter(|listed| listed.kind == PackKind::Meta).map(|listed| listed.bytes).sum()
    }

    /// When a pack was written, by the store's clock.
    pub(super) fn written_unix_ms(&self, pack: &PackId) -> i64 {
        self.find(pack).map_or(i64::MAX, |(_, listed)| listed.written_unix_ms)
    }

    /// The copies of a blob that must stay. Of several that may be relied on, the oldest is enough: a copy that is
    /// stored later changes nothing. Where there is none of these, all copies stay.
    pub(super) fn copies(&self, index: &Index, id: &BlobId) -> Result<BlobCopies, IndexError> {
        let mut places = index.find_all(id)?;
        places.sort_by_key(|place| {
            let pack = place.pack.id;
            (!self.is_usable(&pack), self.written_unix_ms(&pack), pack, place.slot)
        });
        // Two shards may list one pack while one replaces the other.
        places.dedup_by_key(|place| (place.pack.id, place.slot));
        let is_usable = places.first().is_some_and(|place| self.is_usable(&place.pack.id));
        if is_usable {
            places.truncate(1);
        }
        Ok(BlobCopies { places, first_copy_usable: is_usable })
    }
}
