//! A time for each of many objects: when each pack was last verified, until when each object is locked.
//!
//! ```text
//!   verified/ID   encrypted object of:  ( pack 16 | when it was verified 8 )…
//!   locked/ID     the same:  ( pack or snapshot 16 | until when it is locked 8 )…
//!                 times in milliseconds since 1970, by the store's clock; of several the latest is valid
//! ```

use std::collections::HashMap;

use bytes::Bytes;
use ulid::Ulid;

use crate::cursor::Cursor;
use crate::damage::Damage;
use crate::format::encrypted;
use crate::index::IndexError;
use crate::keys::Keys;
use crate::store::{Store, StoreError, names};

/// More objects than this are merged into one.
const OBJECTS_MAX: usize = 16;

/// The id of a pack or of a snapshot.
pub(crate) type Name = [u8; 16];

/// A time for each name.
pub(crate) type TimestampsById = HashMap<Name, i64>;

/// The times in one folder.
pub(crate) struct TimestampFolder<'a> {
    pub(crate) store: &'a Store,
    pub(crate) keys: &'a Keys,
    pub(crate) folder: &'static str,
    pub(crate) object_name: &'static str,
}

impl TimestampFolder<'_> {
    /// Reads all times.
    pub(crate) async fn load(&self) -> Result<TimestampsById, IndexError> {
        let mut times = TimestampsById::new();
        for listed in self.store.list(&names::folder(self.folder)).await? {
            let object = match self.store.get(&listed.path).await {
                Ok(object) => object,
                // Merged into another since it was listed.
                Err(StoreError::NotFound { .. }) => continue,
                Err(error) => return Err(error.into()),
            };
            encrypted::decrypt(self.keys, &listed.path, self.object_name, &object)
                .and_then(|text| decode(&text, self.object_name, &mut times))
                .map_err(|source| IndexError::Damaged { name: listed.path.to_string(), source })?;
        }
        Ok(times)
    }

    /// Stores more times. `there` says what the store has: times of all else are dropped when objects are merged.
    pub(crate) async fn add(
        &self,
        times: &TimestampsById,
        there: impl Fn(&Name) -> bool,
    ) -> Result<(), IndexError> {
        if times.is_empty() {
            return Ok(());
        }
        let before = self.store.list(&names::folder(self.folder)).await?;
        let merged = before.len() >= OBJECTS_MAX;
        let times = if merged {
            let mut all = self.load().await?;
            all.extend(times);
            all.retain(|name, _| there(name));
            all
        } else {
            times.clone()
        };
        let name = names::entry(self.folder, Ulid::generate());
        self.store.put(&name, Bytes::from(encrypted::encrypt(self.keys, &name, encode(&times)))).await?;
        if merged {
            for listed in before {
                self.store.delete(&listed.path).await?;
            }
        }
        Ok(())
    }
}

pub(crate) fn encode(times: &TimestampsById) -> Vec<u8> {
    let mut out = Vec::with_capacity(times.len() * 24);
    for (name, at) in times {
        out.extend_from_slice(name);
        out.extend_from_slice(&at.to_le_bytes());
    }
    out
}

fn decode(text: &[u8], what: &'static str, into: &mut TimestampsById) -> Result<(), Damage> {
    let mut cursor = Cursor::new(text, what);
    while !cursor.is_empty() {
        let name = cursor.array()?;
        let at = i64::from_le_bytes(cursor.array()?);
        into.entry(name).and_modify(|known| *known = at.max(*known)).or_insert(at);
    }
    Ok(())
}
