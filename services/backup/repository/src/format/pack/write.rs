//! Filling a pack.

use super::read::Footer;
use super::{Directory, Entry, PackEncryptionInfo, PackKind, bound};
use crate::damage::Damage;
use crate::ids::{BlobId, BlobKind, PackId};
use crate::keys::{Aead, Cipher, Keys, TAG_BYTES};
use crate::random::random;

/// What is random about a pack.
pub(crate) struct NewPackParams {
    pub(crate) id: PackId,
    pub(crate) ephemeral_private_key: [u8; 32],
    pub(crate) cipher: Cipher,
}

impl NewPackParams {
    pub(crate) fn generate() -> NewPackParams {
        NewPackParams { id: PackId::generate(), ephemeral_private_key: random(), cipher: Cipher::preferred() }
    }
}

/// A pack being filled.
pub(crate) struct PackWriter {
    head: PackEncryptionInfo,
    key: Aead,
    directory_key: Aead,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl PackWriter {
    /// An empty pack with room for `capacity` bytes, encrypted with the keys of the newest epoch.
    pub(crate) fn new(
        keys: &Keys,
        kind: PackKind,
        seed: &NewPackParams,
        capacity: usize,
    ) -> Result<PackWriter, Damage> {
        let (epoch, cipher, id) = (keys.current(), seed.cipher, seed.id);
        let (key, envelope) = match kind {
            PackKind::Data => epoch.new_data_pack(cipher, id, &seed.ephemeral_private_key)?,
            PackKind::Meta => (epoch.meta_pack(cipher, id), [0; 32]),
        };
        let head =
            PackEncryptionInfo { id, kind, cipher, epoch: epoch.number, ephemeral_public_key: envelope };
        let directory_key = epoch.directory(cipher, id);
        Ok(PackWriter { head, key, directory_key, bytes: Vec::with_capacity(capacity), entries: Vec::new() })
    }

    /// Encrypts an encoded blob into the next slot; returns the bytes it takes.
    pub(crate) fn add(&mut self, kind: BlobKind, id: BlobId, raw_bytes: usize, mut text: Vec<u8>) -> u32 {
        let slot = self.entries.len() as u32;
        self.key.encrypt(slot, &bound(id, kind, self.head.id, slot), &mut text);
        let encrypted_bytes = text.len() as u32;
        self.bytes.extend_from_slice(&text);
        self.entries.push(Entry { id, kind, encrypted_bytes, raw_bytes: raw_bytes as u32 });
        encrypted_bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The whole object and what is in it.
    pub(crate) fn finish(mut self) -> (Vec<u8>, Directory) {
        let directory = Directory { descriptor: self.head, entries: self.entries };
        let mut encrypted = Vec::new();
        directory.write(&mut encrypted);
        let directory_bytes = (encrypted.len() + TAG_BYTES) as u32;
        let footer =
            Footer { descriptor: self.head, directory_offset: self.bytes.len() as u64, directory_bytes }
                .encode();
        self.directory_key.encrypt(0, Footer::bound(&footer), &mut encrypted);
        self.bytes.extend_from_slice(&encrypted);
        self.bytes.extend_from_slice(&footer);
        (self.bytes, directory)
    }
}
