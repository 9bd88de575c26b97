//! The key bundle that a slot is granted.
//!
//! ```text
//!   role 1 | ids 32 | authority 32 | [ authority seed 32 ]
//!   epochs 4 | ( number 4 | meta 32 | reader public 32 | [ reader 32 ] ) …
//! ```
//!
//! What is in brackets is there where the role is to read (0) and missing where it is to write only (1). A fixed
//! layout, so that no serializer leaves copies of keys in memory.

use zeroize::Zeroizing;

use super::recipient::{self, PUBLIC_BYTES};
use super::{EpochKeys, KEY_BYTES, Key, Role, authority_of};
use crate::cursor::Cursor;
use crate::damage::Damage;

const WHAT: &str = "key bundle";

pub(super) struct KeyBundle {
    pub(super) ids: Key,
    pub(super) authority_public_key: [u8; PUBLIC_BYTES],
    pub(super) authority_private_key: Option<Key>,
    /// Oldest first, never empty.
    pub(super) epochs: Vec<EpochKeys>,
}

impl KeyBundle {
    /// The keys of a new repository.
    pub(super) fn generate() -> KeyBundle {
        let seed = recipient::private();
        KeyBundle {
            ids: recipient::private(),
            authority_public_key: authority_of(&seed),
            authority_private_key: Some(seed),
            epochs: vec![EpochKeys::generate(1)],
        }
    }

    /// The same with one more epoch.
    pub(super) fn with_new_epoch(mut self) -> KeyBundle {
        let last = self.epochs.last().map_or(0, |epoch| epoch.number);
        self.epochs.push(EpochKeys::generate(last + 1));
        self
    }

    /// What a slot of that role is granted.
    pub(super) fn encode_for(&self, role: Role) -> Zeroizing<Vec<u8>> {
        // Room for everything at once: a growing buffer would leave copies of keys behind.
        let mut out = Zeroizing::new(Vec::with_capacity(1 + 3 * KEY_BYTES + 4 + self.epochs.len() * 100));
        out.push(role as u8);
        out.extend_from_slice(&*self.ids);
        out.extend_from_slice(&self.authority_public_key);
        if let (Role::Full, Some(seed)) = (role, &self.authority_private_key) {
            out.extend_from_slice(&**seed);
        }
        out.extend_from_slice(&(self.epochs.len() as u32).to_le_bytes());
        for epoch in &self.epochs {
            out.extend_from_slice(&epoch.number.to_le_bytes());
            out.extend_from_slice(&*epoch.meta);
            out.extend_from_slice(&epoch.reader_public_key);
            if let (Role::Full, Some(reader)) = (role, &epoch.reader_private_key) {
                out.extend_from_slice(&**reader);
            }
        }
        out
    }

    pub(super) fn decode(text: &[u8]) -> Result<KeyBundle, Damage> {
        let mut cursor = Cursor::new(text, WHAT);
        let role = Role::from_byte(cursor.u8()?).ok_or_else(|| cursor.malformed("its role is unknown"))?;
        let key = |cursor: &mut Cursor<'_>| cursor.array().map(Zeroizing::new);
        let private = |cursor: &mut Cursor<'_>| match role {
            Role::Full => key(cursor).map(Some),
            Role::WriteOnly => Ok(None),
        };
        let ids = key(&mut cursor)?;
        let authority = cursor.array()?;
        let authority_seed = private(&mut cursor)?;
        let count = cursor.count(4 + KEY_BYTES + PUBLIC_BYTES)?;
        let mut epochs: Vec<EpochKeys> = Vec::with_capacity(count);
        for _ in 0..count {
            let number = cursor.u32()?;
            if epochs.last().is_some_and(|last| last.number >= number) {
                return Err(cursor.malformed("its epochs are out of order"));
            }
            let meta = key(&mut cursor)?;
            let reader_public = cursor.array()?;
            epochs.push(EpochKeys {
                number,
                meta,
                reader_public_key: reader_public,
                reader_private_key: private(&mut cursor)?,
            });
        }
        if epochs.is_empty() {
            return Err(cursor.malformed("it has no epoch"));
        }
        cursor.end()?;
        Ok(KeyBundle { ids, authority_public_key: authority, authority_private_key: authority_seed, epochs })
    }
}
