//! What names a repository, a pack and a blob; [`crate::keys`] and [`mod@crate::format`] both build on these.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::random::random;

/// The id of a repository, generated at `init`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryId(#[serde(with = "serde_bytes")] [u8; 16]);

impl RepositoryId {
    pub(crate) fn generate() -> RepositoryId {
        RepositoryId(random())
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A fixed id, for tests.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn known() -> RepositoryId {
        RepositoryId([3; 16])
    }
}

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Names a pack: 128 random bits, so that a name reveals nothing and is never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PackId([u8; 16]);

impl PackId {
    pub(crate) fn generate() -> PackId {
        PackId(random())
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl From<[u8; 16]> for PackId {
    fn from(bytes: [u8; 16]) -> PackId {
        PackId(bytes)
    }
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PackId({self})")
    }
}

impl FromStr for PackId {
    type Err = hex::FromHexError;

    fn from_str(name: &str) -> Result<PackId, hex::FromHexError> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(name, &mut bytes)?;
        Ok(PackId(bytes))
    }
}

/// Names a blob: keyed BLAKE3-256 of its content, under a key of its kind.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlobId(#[serde(with = "serde_bytes")] [u8; 32]);

impl From<[u8; 32]> for BlobId {
    fn from(bytes: [u8; 32]) -> BlobId {
        BlobId(bytes)
    }
}

impl BlobId {
    /// The 32 bytes of the hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({})", hex::encode(&self.0[..6]))
    }
}

/// What a blob holds. The same bytes under two kinds have unrelated ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum BlobKind {
    /// Bytes of a disk or stream.
    Chunk = 0,
    /// The recipe of one segment, or of a part of a stream.
    RecipeLeaf = 1,
    /// The leaves of many segments.
    RecipePage = 2,
    /// The pages of one disk.
    DiskRecipe = 3,
    /// The leaves of one stream.
    StreamRecipe = 4,
}

impl BlobKind {
    pub(crate) const ALL: [BlobKind; 5] = [
        BlobKind::Chunk,
        BlobKind::RecipeLeaf,
        BlobKind::RecipePage,
        BlobKind::DiskRecipe,
        BlobKind::StreamRecipe,
    ];

    /// Part of the context that the id key of this kind is derived with: never changed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            BlobKind::Chunk => "chunk",
            BlobKind::RecipeLeaf => "leaf",
            BlobKind::RecipePage => "page",
            BlobKind::DiskRecipe => "disk",
            BlobKind::StreamRecipe => "stream",
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<BlobKind> {
        BlobKind::ALL.get(usize::from(byte)).copied()
    }
}
