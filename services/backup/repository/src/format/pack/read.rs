//! Reading what a pack holds, from bytes that may be damaged.

use std::ops::Range;

use super::{
    Directory, Entry, FOOTER_BYTES, FOOTER_CHECKED_BYTES, MAGIC, PackEncryptionInfo, PackKind, WHAT, bound,
};
use crate::cursor::Cursor;
use crate::damage::{Damage, FORMAT_VERSION};
use crate::format::blob;
use crate::format::header;
use crate::ids::PackId;
use crate::keys::{Aead, Cipher, Keys, TAG_BYTES};

const DIRECTORY: &str = "directory of a pack";

/// The end of a pack, not encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) descriptor: PackEncryptionInfo,
    pub(super) directory_offset: u64,
    pub(super) directory_bytes: u32,
}

impl Footer {
    pub(super) fn encode(&self) -> [u8; FOOTER_BYTES] {
        let PackEncryptionInfo { id, kind, cipher, epoch, ephemeral_public_key: envelope } = self.descriptor;
        let mut footer = [0; FOOTER_BYTES];
        footer[..8].copy_from_slice(MAGIC);
        footer[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        footer[10] = kind as u8;
        footer[11] = cipher as u8;
        footer[12..16].copy_from_slice(&epoch.to_le_bytes());
        footer[16..20].copy_from_slice(&self.directory_bytes.to_le_bytes());
        footer[24..32].copy_from_slice(&self.directory_offset.to_le_bytes());
        footer[32..48].copy_from_slice(id.as_bytes());
        footer[48..80].copy_from_slice(&envelope);
        let check = blake3::hash(Footer::bound(&footer));
        footer[FOOTER_CHECKED_BYTES..].copy_from_slice(&check.as_bytes()[..16]);
        footer
    }

    /// The part of the footer that is the directory's AAD.
    pub(super) fn bound(footer: &[u8; FOOTER_BYTES]) -> &[u8] {
        &footer[..FOOTER_CHECKED_BYTES]
    }

    /// Reads the last bytes of a pack of `pack_bytes` that is stored under the name of `pack`.
    pub(crate) fn decode(
        pack: PackId,
        kind: PackKind,
        pack_bytes: u64,
        footer: &[u8; FOOTER_BYTES],
    ) -> Result<Footer, Damage> {
        let malformed = |why| Damage::Malformed { what: WHAT, why };
        let mut cursor = Cursor::new(header(MAGIC, WHAT, footer)?, WHAT);
        if blake3::hash(Footer::bound(footer)).as_bytes()[..16] != footer[FOOTER_CHECKED_BYTES..] {
            return Err(malformed("its footer does not match its checksum"));
        }
        let found_kind = PackKind::from_byte(cursor.u8()?).ok_or_else(|| malformed("its kind is unknown"))?;
        let cipher = Cipher::from_byte(cursor.u8()?).ok_or_else(|| malformed("its cipher is unknown"))?;
        let epoch = cursor.u32()?;
        let directory_bytes = cursor.u32()?;
        cursor.u32()?;
        let directory_offset = cursor.u64()?;
        if found_kind != kind || PackId::from(cursor.array()?) != pack {
            return Err(malformed("it is stored under the name of another pack"));
        }
        let head =
            PackEncryptionInfo { id: pack, kind, cipher, epoch, ephemeral_public_key: cursor.array()? };
        let end = pack_bytes.checked_sub(FOOTER_BYTES as u64);
        if directory_offset.checked_add(u64::from(directory_bytes)) != end {
            return Err(malformed("its length is not what its footer says"));
        }
        Ok(Footer { descriptor: head, directory_offset, directory_bytes })
    }

    /// The range of the encrypted directory in the pack.
    pub(crate) fn directory(&self) -> Range<u64> {
        self.directory_offset..self.directory_offset + u64::from(self.directory_bytes)
    }
}

/// Decrypts the directory that a footer describes.
pub(crate) fn decrypt_directory(keys: &Keys, footer: &Footer, encrypted: &[u8]) -> Result<Directory, Damage> {
    let PackEncryptionInfo { id, cipher, epoch, .. } = footer.descriptor;
    let mut encrypted = encrypted.to_vec();
    let text = keys
        .epoch(epoch)?
        .directory(cipher, id)
        .decrypt(0, Footer::bound(&footer.encode()), &mut encrypted)
        .map_err(|_| Damage::NotAuthentic { what: DIRECTORY })?;
    let mut cursor = Cursor::new(text, DIRECTORY);
    let directory = Directory::read(footer.descriptor, &mut cursor)?;
    cursor.end()?;
    let blobs: u64 = directory.entries.iter().map(|entry| u64::from(entry.encrypted_bytes)).sum();
    if blobs != footer.directory_offset {
        return Err(Damage::Malformed { what: WHAT, why: "its blobs do not fill it" });
    }
    Ok(directory)
}

/// Decrypts one blob of a pack with the pack's key and returns its encoding; `encrypted` is overwritten.
pub(crate) fn decrypt_encoded<'a>(
    key: &Aead,
    pack: PackId,
    slot: u32,
    entry: &Entry,
    encrypted: &'a mut [u8],
) -> Result<&'a [u8], Damage> {
    if encrypted.len() < TAG_BYTES + 1 {
        return Err(Damage::Malformed { what: entry.kind.name(), why: "it ends too early" });
    }
    key.decrypt(slot, &bound(entry.id, entry.kind, pack, slot), encrypted)
        .map(|text| &*text)
        .map_err(|_| Damage::NotAuthentic { what: entry.kind.name() })
}

/// Decrypts and checks one blob of a pack with the pack's key; `encrypted` is overwritten.
pub(crate) fn decrypt_blob(
    keys: &Keys,
    key: &Aead,
    pack: PackId,
    slot: u32,
    entry: &Entry,
    encrypted: &mut [u8],
) -> Result<Vec<u8>, Damage> {
    let text = decrypt_encoded(key, pack, slot, entry, encrypted)?;
    blob::decode(keys, entry.kind, entry.id, entry.raw_bytes as usize, text)
}
