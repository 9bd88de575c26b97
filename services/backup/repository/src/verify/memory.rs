//! What verifications remember: when each pack was last read and found good.
//!
//! ```text
//!   verified/ID   sealed object of:  ( pack 16 | when 8, by the store's clock )…
//! ```

use std::collections::HashMap;

use bytes::Bytes;
use ulid::Ulid;

use crate::format::bytes::Cursor;
use crate::format::pack::PackId;
use crate::format::{Damage, sealed};
use crate::index::IndexError;
use crate::keys::Keys;
use crate::store::{Store, StoreError, names};

const WHAT: &str = "list of verified packs";
/// More notes than this are merged into one.
const NOTES_MAX: usize = 16;

/// When each pack was found good, in milliseconds by the store's clock.
pub(super) type Memory = HashMap<PackId, i64>;

fn encode(memory: &Memory) -> Vec<u8> {
    let mut out = Vec::with_capacity(memory.len() * 24);
    for (pack, at) in memory {
        out.extend_from_slice(pack.as_bytes());
        out.extend_from_slice(&at.to_le_bytes());
    }
    out
}

fn decode(text: &[u8], into: &mut Memory) -> Result<(), Damage> {
    let mut cursor = Cursor::new(text, WHAT);
    while !cursor.is_empty() {
        let pack = PackId::from(cursor.array()?);
        let at = i64::from_le_bytes(cursor.array()?);
        into.entry(pack).and_modify(|known| *known = at.max(*known)).or_insert(at);
    }
    Ok(())
}

/// Reads all notes.
pub(super) async fn recall(store: &Store, keys: &Keys) -> Result<Memory, IndexError> {
    let mut memory = Memory::new();
    for listed in store.list(&names::folder(names::VERIFIED)).await? {
        let object = match store.get(&listed.path).await {
            Ok(object) => object,
            // Merged into another since it was listed.
            Err(StoreError::NotFound { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        sealed::open(keys, &listed.path, WHAT, &object)
            .and_then(|text| decode(&text, &mut memory))
            .map_err(|source| IndexError::Damaged { name: listed.path.to_string(), source })?;
    }
    Ok(memory)
}

/// Notes packs that were found good. `there` says which packs the store has: others are forgotten when notes are merged.
pub(super) async fn note(
    store: &Store,
    keys: &Keys,
    found_good: &Memory,
    there: impl Fn(&PackId) -> bool,
) -> Result<(), IndexError> {
    if found_good.is_empty() {
        return Ok(());
    }
    let before = store.list(&names::folder(names::VERIFIED)).await?;
    let merged = before.len() >= NOTES_MAX;
    let memory = if merged {
        let mut memory = recall(store, keys).await?;
        memory.extend(found_good);
        memory.retain(|pack, _| there(pack));
        memory
    } else {
        found_good.clone()
    };
    let name = names::entry(names::VERIFIED, Ulid::generate());
    store.put(&name, Bytes::from(sealed::seal(keys, &name, encode(&memory)))).await?;
    if merged {
        for listed in before {
            store.delete(&listed.path).await?;
        }
    }
    Ok(())
}
