//! What the objects of a repository hold, byte for byte.
//!
//! Promises: every reader checks before it believes (lengths, counts, versions, authenticity) and never
//! allocates what a damaged object asks for; every writer's output is read back by the reader beside it.
//!
//! ```text
//!   snapshot ──> disk ──> page ──> leaf ──> chunk          ids are keyed BLAKE3-256 of the content
//!   (object)      └────────┴────────┴── recipes, in meta packs     └── in data packs
//!
//!   pack    sealed blob | sealed blob | … | sealed directory | footer (64 bytes)
//!   shard   directories of many packs, for the index
//! ```
//!
//! All integers are little-endian. Small records (config, key slot, snapshot, lease) are MessagePack maps with
//! field names, so that a field can be added; what exists once per chunk or segment has a fixed binary layout.
//! An object begins with eight letters and a version; a newer version is refused, never guessed at.
//!
//! It does no IO and knows no store: see [`crate::store`].

pub mod blob;
pub(crate) mod bytes;
pub(crate) mod config;
pub(crate) mod pack;
pub(crate) mod packed;
pub(crate) mod recipe;
pub(crate) mod sealed;
pub(crate) mod shard;
pub mod snapshot;

use serde::{Deserialize, Serialize};

/// The version of every object written by this crate. No compatibility is promised while it is 0.
pub(crate) const VERSION: u16 = 0;

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
        found => Err(Damage::Newer { what, found }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::blob::{BlobId, BlobKind};
    use super::bytes::Cursor;
    use super::pack::{self, Directory, FOOTER_BYTES, PackId, PackKind, PackWriter};
    use super::recipe::{self, Disk, Piece};
    use super::*;
    use crate::keys::{KdfCost, MasterKey, Secret, Slot};

    fn id() -> impl Strategy<Value = BlobId> {
        any::<[u8; 32]>().prop_map(BlobId::from)
    }

    proptest! {
        #[test]
        fn readers_take_any_bytes_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            // Whatever comes, it is an error or a value, and never a panic or a huge allocation.
            let _ = recipe::decode_leaf(&bytes, 4 << 20);
            let _ = recipe::decode_page(&bytes, 1024);
            let _ = Disk::decode(&[b"disk", bytes.as_slice()].concat());
            let _ = shard::decode(&bytes);
            let _ = config::Config::decode(&[b"LOAMREPO\0\0", bytes.as_slice()].concat());
            let _ = Slot::decode(&[b"LOAMSLOT\0\0", bytes.as_slice()].concat());
            let kind = PackKind::Data;
            let _ = Directory::read(PackId::from([0; 16]), kind, &mut Cursor::new(&bytes, "directory"));
            if let Some(footer) = bytes.last_chunk::<FOOTER_BYTES>() {
                let _ = pack::directory_range(PackId::from([0; 16]), kind, bytes.len() as u64, footer);
            }
        }

        #[test]
        fn recipes_are_read_as_they_were_written(
            pieces in prop::collection::vec((prop::option::of(id()), 1u32..200_000), 1..80),
            leaves in prop::collection::vec(prop::option::of(id()), 0..100),
        ) {
            let pieces: Vec<_> = pieces
                .into_iter()
                .map(|(id, bytes)| match id {
                    None => Piece::Hole { bytes },
                    Some(id) => Piece::Chunk { id, bytes },
                })
                .collect();
            let segment_bytes = pieces.iter().map(|piece| u64::from(piece.bytes())).sum();
            let leaf = recipe::encode_leaf(&pieces);
            prop_assert_eq!(recipe::decode_leaf(&leaf, segment_bytes), Ok(pieces));
            prop_assert!(recipe::decode_leaf(&leaf, segment_bytes + 1).is_err());
            let page = recipe::encode_page(&leaves);
            prop_assert_eq!(recipe::decode_page(&page, leaves.len() as u64), Ok(leaves.clone()));
            let disk = Disk { size_bytes: (leaves.len() as u64) << 32, segment_bytes: 4 << 20, pages: leaves };
            prop_assert_eq!(Disk::decode(&disk.encode()), Ok(disk));
        }

        #[test]
        fn packs_are_read_as_they_were_written_and_not_otherwise(
            contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..20),
            flipped: prop::sample::Index,
        ) {
            let keys = MasterKey::generate().derive();
            let mut writer = PackWriter::new(&keys, PackKind::Data, 0);
            for content in &contents {
                let text = blob::encode(content, crate::keys::TAG_BYTES);
                writer.add(BlobKind::Chunk, keys.id(BlobKind::Chunk, content), content.len(), text);
            }
            let (mut object, directory) = writer.finish();
            prop_assert_eq!(read(&keys, &directory, &object), Some(contents));
            let at = flipped.index(object.len());
            object[at] ^= 1;
            prop_assert_eq!(read(&keys, &directory, &object), None, "byte {} was changed", at);
        }
    }

    /// Everything in a pack, when all of it is as it should be.
    fn read(keys: &crate::keys::Keys, written: &Directory, object: &[u8]) -> Option<Vec<Vec<u8>>> {
        let Directory { pack, kind, .. } = *written;
        let footer = object.last_chunk::<FOOTER_BYTES>()?;
        let range = pack::directory_range(pack, kind, object.len() as u64, footer).ok()?;
        let sealed = object.get(range.start as usize..range.end as usize)?;
        let directory = pack::open_directory(keys, pack, kind, range.start, sealed).ok()?;
        assert_eq!(&directory, written, "an authentic directory is the one that was written");
        directory
            .placed()
            .map(|(slot, offset, entry)| {
                let sealed = &object[offset as usize..(offset + entry.sealed_bytes) as usize];
                pack::open_blob(keys, &keys.pack(pack), pack, slot, entry, &mut sealed.to_vec()).ok()
            })
            .collect()
    }

    #[test]
    fn a_slot_that_would_exhaust_the_machine_is_refused() {
        let master = MasterKey::generate();
        let secret = Secret::passphrase("words").unwrap();
        let cheap = KdfCost { memory_kib: 8, passes: 1, lanes: 1 };
        let slot = Slot::wrap(&master, RepositoryId::generate(), &secret, cheap).unwrap();
        let honest = slot.encode();
        assert!(Slot::decode(&honest).is_ok());
        let at = honest.windows(10).position(|name| name == b"memory_kib").unwrap() + 10;
        // The number 8 becomes the largest that fits: 0xce and four bytes.
        let greedy = [&honest[..at], &[0xce, 0xff, 0xff, 0xff, 0xff], &honest[at + 1..]].concat();
        assert!(matches!(Slot::decode(&greedy), Err(Damage::Malformed { .. })));
    }
}
