//! Lists of condemned packs: those that are to be deleted.
//!
//! ```text
//!   condemned/ID/packs   encrypted object of MessagePack { packs }    the names of packs, 16 bytes each, one after the other
//!   condemned/ID/waits   encrypted object of MessagePack { leases [ ULID … ] }
//! ```
//!
//! A pack stays on its list until it is gone, however long that takes: a backup that begins afterwards never relies on
//! it. That makes deleting it late, or twice, safe.

use std::collections::HashSet;

use bytes::Bytes;
use object_store::path::Path;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::damage::Damage;
use crate::format::{encrypted, packed};
use crate::ids::PackId;
use crate::index::IndexError;
use crate::keys::Keys;
use crate::lease::{self, LeaseId};
use crate::store::{Store, StoreError, names};

pub(crate) const PACKS: &str = "packs";
pub(crate) const WAITS: &str = "waits";
const WHAT: &str = "list of condemned packs";

/// One list.
#[derive(Debug)]
pub(super) struct CondemnedPacks {
    pub(super) id: Ulid,
    pub(super) packs: Vec<PackId>,
}

#[derive(Serialize, Deserialize)]
struct PackNames {
    #[serde(with = "serde_bytes")]
    packs: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Waits {
    leases: Vec<String>,
}

pub(crate) fn part(id: Ulid, part: &str) -> Path {
    names::entry(names::CONDEMNED, id).join(part)
}

/// Every pack on any list: a backup that has taken its lease must not rely on them.
pub(crate) async fn all_packs(store: &Store, keys: &Keys) -> Result<HashSet<PackId>, IndexError> {
    Ok(all(store, keys).await?.into_iter().flat_map(|list| list.packs).collect())
}

/// All lists.
pub(super) async fn all(store: &Store, keys: &Keys) -> Result<Vec<CondemnedPacks>, IndexError> {
    let mut lists = Vec::new();
    for listed in store.list(&names::folder(names::CONDEMNED)).await? {
        let Some(id) = listed.path.parts().nth(1).and_then(|id| Ulid::from_string(id.as_ref()).ok()) else {
            continue;
        };
        if listed.path != part(id, PACKS) {
            continue;
        }
        match read(store, keys, id).await {
            Ok(list) => lists.push(list),
            // Removed since it was listed, after all of its packs.
            Err(IndexError::Store(StoreError::NotFound { .. })) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(lists)
}

async fn read(store: &Store, keys: &Keys, id: Ulid) -> Result<CondemnedPacks, IndexError> {
    let name = part(id, PACKS);
    let object = store.get(&name).await?;
    let packs = encrypted::decrypt(keys, &name, WHAT, &object)
        .and_then(|text| decode_packs(&text))
        .map_err(|source| IndexError::Damaged { name: name.to_string(), source })?;
    Ok(CondemnedPacks { id, packs })
}

pub(crate) fn encode_packs(packs: &[PackId]) -> Vec<u8> {
    packed::body(&PackNames { packs: packs.iter().flat_map(|pack| *pack.as_bytes()).collect() })
}

pub(crate) fn decode_packs(text: &[u8]) -> Result<Vec<PackId>, Damage> {
    match packed::decode::<PackNames>(text, WHAT)?.packs.as_chunks::<16>() {
        (packs, []) => Ok(packs.iter().map(|&pack| PackId::from(pack)).collect()),
        _ => Err(Damage::Malformed { what: WHAT, why: "a name is cut off" }),
    }
}

pub(crate) fn encode_waits(leases: &[LeaseId]) -> Vec<u8> {
    packed::body(&Waits { leases: leases.iter().map(Ulid::to_string).collect() })
}

pub(crate) fn decode_waits(text: &[u8]) -> Result<Vec<LeaseId>, Damage> {
    let waits: Waits = packed::decode(text, WHAT)?;
    let ids = waits.leases.iter().map(|id| Ulid::from_string(id));
    ids.collect::<Result<_, _>>().map_err(|_| Damage::Malformed { what: WHAT, why: "a lease has no name" })
}

/// Writes a new list.
pub(super) async fn condemn(store: &Store, keys: &Keys, packs: &[PackId]) -> Result<(), StoreError> {
    let name = part(Ulid::generate(), PACKS);
    let object = encrypted::encrypt(keys, &name, encode_packs(packs));
    store.put(&name, Bytes::from(object)).await
}

/// The leases that must end before packs of a list may go: those that were held at some time after the list was
/// written. Noted once, so that later ones are not waited for.
pub(super) async fn waits(store: &Store, keys: &Keys, id: Ulid) -> Result<Vec<LeaseId>, IndexError> {
    let name = part(id, WAITS);
    match store.get(&name).await {
        Ok(object) => encrypted::decrypt(keys, &name, WHAT, &object)
            .and_then(|text| decode_waits(&text))
            .map_err(|source| IndexError::Damaged { name: name.to_string(), source }),
        Err(StoreError::NotFound { .. }) => {
            let held = lease::held(store).await?;
            let object = encrypted::encrypt(keys, &name, encode_waits(&held));
            store.put(&name, Bytes::from(object)).await?;
            Ok(held)
        }
        Err(error) => Err(error.into()),
    }
}

/// Removes what is left of lists that are gone: a concurrent collection may have noted leases for a list after another
/// removed it, and died. If the list exists after all, its leases are noted again.
pub(super) async fn sweep(store: &Store) -> Result<(), StoreError> {
    let listed = store.list(&names::folder(names::CONDEMNED)).await?;
    let id = |path: &Path, of: &str| {
        let id = path.parts().nth(1).and_then(|id| Ulid::from_string(id.as_ref()).ok())?;
        (*path == part(id, of)).then_some(id)
    };
    let lists: HashSet<_> = listed.iter().filter_map(|listed| id(&listed.path, PACKS)).collect();
    for noted in listed.iter().filter_map(|listed| id(&listed.path, WAITS)) {
        if !lists.contains(&noted) {
            store.delete(&part(noted, WAITS)).await?;
        }
    }
    Ok(())
}

/// Removes a list of which no pack is left.
pub(super) async fn remove(store: &Store, id: Ulid) -> Result<(), StoreError> {
    store.delete(&part(id, WAITS)).await?;
    store.delete(&part(id, PACKS)).await
}
