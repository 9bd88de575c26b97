//! A pack: many encrypted blobs in one object.
//!
//! ```text
//!   blob 0 | blob 1 | … | directory | footer
//!
//!   blob       encrypted( key of the pack, nonce = slot, aad = id 32 | kind 1 | pack 16 | slot 4 )
//!              of the blob's encoding, see blob.rs; slots count from 0
//!   directory  encrypted( directory key of the pack, nonce = 0, aad = the footer's first 80 bytes )
//!              of: count 4 | count × ( id 32 | kind 1 | encrypted length 4 | raw length 4 )
//!              blobs follow each other in this order, so offsets are sums; encrypted, a blob is 17 bytes longer than raw,
//!              or shorter where it is compressed
//!   footer     "LOAMPACK" | version 2 | pack kind 1 | cipher 1 | epoch 4 | directory length 4 | 0 × 4 |
//!              directory offset 8 | pack 16 | envelope 32 | first 16 bytes of BLAKE3 of the 80 bytes before
//! ```
//!
//! A pack is of data (kind 0: chunks) or of recipes (kind 1: all else). The key of a pack of chunks is agreed with the
//! readers of its epoch, who derive it from the envelope; that of a pack of recipes, and of every directory, comes from the
//! epoch's meta key and the pack's random id (the envelope is zero then). So every slot number is a nonce used once, a pack
//! stored under another's name does not decrypt, and one ranged read of its end is enough to index it again.

mod read;
mod write;

use super::blob::BLOB_BYTES_MAX;
use crate::cursor::Cursor;
use crate::damage::Damage;
use crate::ids::{BlobId, BlobKind, PackId};
use crate::keys::{Aead, Cipher, Keys, PUBLIC_BYTES, TAG_BYTES};

pub(crate) use self::read::{Footer, decrypt_blob, decrypt_directory, decrypt_encoded};
pub(crate) use self::write::{NewPackParams, PackWriter};

const MAGIC: &[u8; 8] = b"LOAMPACK";
/// Bytes at the very end of a pack.
pub(crate) const FOOTER_BYTES: usize = 96;
/// How many of them the checksum and the directory's tag cover.
const FOOTER_CHECKED_BYTES: usize = 80;
/// Bytes that each blob takes in the directory.
pub(crate) const ENTRY_BYTES: usize = 32 + 1 + 4 + 4;
/// What encoding and encryption add at most to a blob: the compression byte and the tag.
const OVERHEAD_BYTES: u32 = 1 + TAG_BYTES as u32;
/// Bytes of a pack of which nothing is a blob or its entry: the directory's count and tag, and the footer.
pub(crate) const EMPTY_PACK_BYTES: usize = 4 + TAG_BYTES + FOOTER_BYTES;
const WHAT: &str = "pack";

/// Data and recipes are in packs of their own, so that reading recipes fetches no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum PackKind {
    Data = 0,
    Meta = 1,
}

impl PackKind {
    pub(crate) const ALL: [PackKind; 2] = [PackKind::Data, PackKind::Meta];

    pub(crate) fn of(kind: BlobKind) -> PackKind {
        match kind {
            BlobKind::Chunk => PackKind::Data,
            BlobKind::RecipeLeaf | BlobKind::RecipePage | BlobKind::DiskRecipe | BlobKind::StreamRecipe => {
                PackKind::Meta
            }
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<PackKind> {
        PackKind::ALL.get(usize::from(byte)).copied()
    }
}

/// What must be known of a pack to open its blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PackEncryptionInfo {
    pub(crate) id: PackId,
    pub(crate) kind: PackKind,
    pub(crate) cipher: Cipher,
    pub(crate) epoch: u32,
    /// Zero for packs of recipes.
    pub(crate) ephemeral_public_key: [u8; PUBLIC_BYTES],
}

impl PackEncryptionInfo {
    /// The key of the pack's blobs.
    pub(crate) fn key(&self, keys: &Keys) -> Result<Aead, Damage> {
        let epoch = keys.epoch(self.epoch)?;
        match self.kind {
            PackKind::Data => epoch.data_pack(self.cipher, self.id, &self.ephemeral_public_key),
            PackKind::Meta => Ok(epoch.meta_pack(self.cipher, self.id)),
        }
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.id.as_bytes());
        out.push(self.kind as u8);
        out.push(self.cipher as u8);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.ephemeral_public_key);
    }

    pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<PackEncryptionInfo, Damage> {
        let id = PackId::from(cursor.array()?);
        let kind = PackKind::from_byte(cursor.u8()?);
        let cipher = Cipher::from_byte(cursor.u8()?);
        let (Some(kind), Some(cipher)) = (kind, cipher) else {
            return Err(cursor.malformed("the kind or cipher of a pack is unknown"));
        };
        Ok(PackEncryptionInfo {
            id,
            kind,
            cipher,
            epoch: cursor.u32()?,
            ephemeral_public_key: cursor.array()?,
        })
    }
}

/// One blob of a pack. Its slot is its place in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: BlobId,
    pub(crate) kind: BlobKind,
    pub(crate) encrypted_bytes: u32,
    pub(crate) raw_bytes: u32,
}

/// All that a pack holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) descriptor: PackEncryptionInfo,
    pub(crate) entries: Vec<Entry>,
}

impl Directory {
    /// Each entry with its slot and offset.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (u32, u32, &Entry)> {
        let mut offset = 0;
        self.entries.iter().zip(0..).map(move |(entry, slot)| {
            let at = offset;
            offset += entry.encrypted_bytes;
            (slot, at, entry)
        })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        for entry in &self.entries {
            out.extend_from_slice(entry.id.as_bytes());
            out.push(entry.kind as u8);
            out.extend_from_slice(&entry.encrypted_bytes.to_le_bytes());
            out.extend_from_slice(&entry.raw_bytes.to_le_bytes());
        }
    }

    pub(crate) fn read(head: PackEncryptionInfo, cursor: &mut Cursor<'_>) -> Result<Directory, Damage> {
        let count = cursor.count(ENTRY_BYTES)?;
        let mut entries = Vec::with_capacity(count);
        let mut end = 0u32;
        for _ in 0..count {
            let id = BlobId::from(cursor.array()?);
            let blob =
                BlobKind::from_byte(cursor.u8()?).ok_or_else(|| cursor.malformed("a kind is unknown"))?;
            let entry = Entry { id, kind: blob, encrypted_bytes: cursor.u32()?, raw_bytes: cursor.u32()? };
            let encrypted_bytes = OVERHEAD_BYTES..=entry.raw_bytes.saturating_add(OVERHEAD_BYTES);
            if PackKind::of(blob) != head.kind
                || entry.raw_bytes as usize > BLOB_BYTES_MAX
                || !encrypted_bytes.contains(&entry.encrypted_bytes)
            {
                return Err(cursor.malformed("an entry is not valid"));
            }
            end = end
                .checked_add(entry.encrypted_bytes)
                .ok_or_else(|| cursor.malformed("its blobs are too long together"))?;
            entries.push(entry);
        }
        Ok(Directory { descriptor: head, entries })
    }
}

fn bound(id: BlobId, kind: BlobKind, pack: PackId, slot: u32) -> [u8; 53] {
    let mut bound = [0; 53];
    bound[..32].copy_from_slice(id.as_bytes());
    bound[32] = kind as u8;
    bound[33..49].copy_from_slice(pack.as_bytes());
    bound[49..].copy_from_slice(&slot.to_le_bytes());
    bound
}
