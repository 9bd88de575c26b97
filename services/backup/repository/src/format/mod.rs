//! What the objects of a repository hold, byte for byte.
//!
//! Promises: every reader checks before it believes (lengths, counts, versions, authenticity) and never
//! allocates what a damaged object asks for; every writer's output is read back by the reader beside it.
//!
//! ```text
//!   snapshot ──> disk ──> page ──> leaf ──> chunk          ids are keyed BLAKE3-256 of the content
//!   (object) └─> stream ───────────┘ │      └── in data packs
//!                 └── recipes, in meta packs
//!
//!   pack    sealed blob | sealed blob | … | sealed directory | footer (96 bytes)
//!   shard   directories of many packs, for the index
//! ```
//!
//! All integers are little-endian, and a number behind a field in these pictures is its length in bytes. Small records
//! (config, key roster, snapshot) are MessagePack maps with field names, so that a field can be added; choices in them
//! are words, bytes are `bin`, ids of snapshots and slots are ULIDs in 26 lower- or upper-case letters. What exists once
//! per chunk or segment has a fixed binary layout. An object begins with eight letters and a version (1); a newer version
//! is refused, never guessed at.
//!
//! Each module says its layout, [`crate::keys`] where the keys come from, [`crate::store::names`] where the objects lie.
//! The reader in `tests/independent.py` was written from these pages alone; what version 1 wrote is kept in
//! `tests/golden/v1` and read for ever.
//!
//! It does no IO and knows no store: see [`crate::store`].

pub mod blob;
pub(crate) mod bytes;
pub(crate) mod config;
pub(crate) mod pack;
pub(crate) mod packed;
pub mod private;
pub(crate) mod recipe;
pub(crate) mod sealed;
pub(crate) mod shard;
pub mod snapshot;
pub(crate) mod stream;

use serde::{Deserialize, Serialize};

use crate::keys::WriteOnly;

/// The version of every object written by this crate.
pub(crate) const VERSION: u16 = 1;

/// The identity of a repository, made at `init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryId(#[serde(with = "serde_bytes")] [u8; 16]);

impl RepositoryId {
    pub(crate) fn generate() -> RepositoryId {
        RepositoryId(crate::keys::random())
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// One that everybody knows, for tests.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn known() -> RepositoryId {
        RepositoryId([3; 16])
    }
}

impl std::fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Stored bytes are not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The beginning is not that of such an object.
    #[error("this is not a {what}")]
    Foreign {
        /// What it should have been.
        what: &'static str,
    },
    /// Written by a newer version of this software.
    #[error("the {what} has format version {found}, this software reads up to {VERSION}: upgrade it")]
    Newer {
        /// What it is.
        what: &'static str,
        /// Its version.
        found: u16,
    },
    /// Too short, too long, or contradicting itself.
    #[error("the {what} is malformed: {why}")]
    Malformed {
        /// What it is.
        what: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// It does not open under this repository's keys: changed, swapped or from elsewhere.
    #[error("the {what} is not authentic: it was changed, swapped or comes from elsewhere")]
    NotAuthentic {
        /// What it is.
        what: &'static str,
    },
    /// Sealed in an epoch that this slot's grant does not have.
    #[error("it is sealed with keys of epoch {epoch}, which this key was not granted")]
    UnknownEpoch {
        /// The epoch's number.
        epoch: u32,
    },
    /// Nothing is wrong with it, but this key may not.
    #[error(transparent)]
    WriteOnly(WriteOnly),
    /// It should be there and is not.
    #[error("the {what} is missing")]
    Missing {
        /// What it is.
        what: &'static str,
    },
    /// A blob opened but is not what its id says.
    #[error("the content of blob {id} does not match its id")]
    WrongContent {
        /// The id asked for.
        id: blob::BlobId,
    },
    /// The index names no pack that holds it.
    #[error("no pack holds blob {id}")]
    BlobMissing {
        /// The id asked for.
        id: blob::BlobId,
    },
}

/// Checks letters and version at the beginning of an object and returns the rest.
pub(crate) fn header<'a>(magic: &[u8; 8], what: &'static str, object: &'a [u8]) -> Result<&'a [u8], Damage> {
    let rest = object.strip_prefix(magic.as_slice()).ok_or(Damage::Foreign { what })?;
    let (version, rest) =
        rest.split_first_chunk::<2>().ok_or(Damage::Malformed { what, why: "it ends in its header" })?;
    match u16::from_le_bytes(*version) {
        VERSION => Ok(rest),
        0 => Err(Damage::Malformed { what, why: "there is no format version 0" }),
        found => Err(Damage::Newer { what, found }),
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
