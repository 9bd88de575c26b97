//! The packs that the store lists.

use std::collections::HashMap;

use crate::format::pack::PackKind;
use crate::ids::PackId;
use crate::store::{Store, StoreError, names};

/// A pack as the store lists it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListedPack {
    pub(crate) kind: PackKind,
    pub(crate) bytes: u64,
    /// When it was written, by the store's clock.
    pub(crate) written_unix_ms: i64,
}

/// Every pack that the store lists, with its kind and length.
pub(crate) async fn list_packs(store: &Store) -> Result<HashMap<PackId, ListedPack>, StoreError> {
    let mut packs = HashMap::new();
    for kind in PackKind::ALL {
        for listed in store.list(&names::packs(kind)).await? {
            if let Some(id) = names::pack_id(&listed.path) {
                let (bytes, written_unix_ms) = (listed.bytes, listed.written_unix_ms);
                packs.insert(id, ListedPack { kind, bytes, written_unix_ms });
            }
        }
    }
    Ok(packs)
}
