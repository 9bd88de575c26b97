//! What the objects of a repository hold, byte for byte.
//!
//! Promises: every reader checks its input (lengths, counts, versions, authenticity) and never allocates what a damaged
//! object asks for; every writer's output is read by the reader beside it.
//!
//! ```text
//!   snapshot ──> disk ──> page ──> leaf ──> chunk          ids are keyed BLAKE3-256 of the content
//!   (object) └─> stream ───────────┘ │      └── in data packs
//!                 └── recipes, in meta packs
//!
//!   pack    encrypted blob | encrypted blob | … | encrypted directory | footer (96 bytes)
//!   shard   directories of many packs, for the index
//! ```
//!
//! All integers are little-endian, and a number behind a field in these pictures is its length in bytes. Small records
//! (config, key roster, snapshot) are MessagePack maps with field names, so that a field can be added; enums are
//! strings, bytes are `bin`, ids of snapshots and slots are ULIDs of 26 characters in lower or upper case. What exists once
//! per chunk or segment has a fixed binary layout. An object begins with a magic number of eight bytes and a version (1); a
//! newer version is refused.
//!
//! `encrypted( key, nonce, aad )` in these pictures is the ciphertext of a cipher in [`crate::keys`] and its tag 16.
//!
//! Each module documents its layout, [`crate::keys`] the keys, [`crate::store::names`] the object names. The reader in
//! `tests/independent.py` was written from these pages alone; what version 1 wrote is kept in `tests/golden/v1` and must
//! stay readable.
//!
//! It does no IO and knows no store: see [`crate::store`].

pub(crate) mod blob;
pub(crate) mod config;
pub(crate) mod encrypted;
pub(crate) mod pack;
pub(crate) mod packed;
pub mod private;
pub(crate) mod recipe;
pub(crate) mod roster;
pub(crate) mod shard;
pub mod snapshot;
pub(crate) mod stream;

use crate::damage::{Damage, FORMAT_VERSION};

/// Checks magic number and version at the beginning of an object and returns the rest.
pub(crate) fn header<'a>(magic: &[u8; 8], what: &'static str, object: &'a [u8]) -> Result<&'a [u8], Damage> {
    let rest = object.strip_prefix(magic.as_slice()).ok_or(Damage::WrongMagic { what })?;
    let (version, rest) =
        rest.split_first_chunk::<2>().ok_or(Damage::Malformed { what, why: "it ends in its header" })?;
    match u16::from_le_bytes(*version) {
        FORMAT_VERSION => Ok(rest),
        0 => Err(Damage::Malformed { what, why: "there is no format version 0" }),
        found => Err(Damage::NewerFormatVersion { what, found }),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
