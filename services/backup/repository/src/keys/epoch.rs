//! The keys of one epoch.

use super::recipient::{self, PUBLIC_BYTES};
use super::{Aead, Cipher, KEY_BYTES, Key, derive};
use crate::damage::{Damage, WriteOnly};
use crate::ids::PackId;

const DATA_PACK: &str = "loam repository v1 data pack";
const READERS_ONLY: &str = "loam repository v1 for readers";

/// The keys that one epoch's objects are encrypted with.
pub(crate) struct EpochKeys {
    pub(crate) number: u32,
    pub(super) meta: Key,
    pub(super) reader_public_key: [u8; PUBLIC_BYTES],
    /// Only where the slot may read.
    pub(super) reader_private_key: Option<Key>,
}

impl EpochKeys {
    pub(super) fn generate(number: u32) -> EpochKeys {
        let reader = recipient::private();
        EpochKeys {
            number,
            meta: recipient::private(),
            reader_public_key: recipient::public_of(&reader),
            reader_private_key: Some(reader),
        }
    }

    fn meta_key(&self, cipher: Cipher, purpose: &str, name: &[u8]) -> Aead {
        Aead::new(cipher, &derive(purpose, &[&*self.meta, name]))
    }

    /// The key of one small object, by its random salt.
    pub(crate) fn object(&self, cipher: Cipher, salt: &[u8; 32]) -> Aead {
        self.meta_key(cipher, "loam repository v1 object", salt)
    }

    /// The key of one pack of recipes.
    pub(crate) fn meta_pack(&self, cipher: Cipher, pack: PackId) -> Aead {
        self.meta_key(cipher, "loam repository v1 meta pack", pack.as_bytes())
    }

    /// The key of the directory of one pack, of either kind.
    pub(crate) fn directory(&self, cipher: Cipher, pack: PackId) -> Aead {
        self.meta_key(cipher, "loam repository v1 directory", pack.as_bytes())
    }

    /// A new key for one pack of chunks, and the envelope from which only readers derive it again.
    pub(crate) fn new_data_pack(
        &self,
        cipher: Cipher,
        pack: PackId,
        ephemeral: &[u8; KEY_BYTES],
    ) -> Result<(Aead, [u8; PUBLIC_BYTES]), Damage> {
        let bound: [&[u8]; 2] = [&*self.meta, pack.as_bytes()];
        let (key, envelope) = recipient::send(DATA_PACK, ephemeral, &self.reader_public_key, &bound)
            .map_err(|_| Damage::NotAuthentic { what: "reader's key" })?;
        Ok((Aead::new(cipher, &key), envelope))
    }

    /// The key of one pack of chunks, from its envelope.
    pub(crate) fn data_pack(
        &self,
        cipher: Cipher,
        pack: PackId,
        envelope: &[u8; PUBLIC_BYTES],
    ) -> Result<Aead, Damage> {
        let reader = self.reader_private_key.as_ref().ok_or(Damage::WriteOnlyKey(WriteOnly))?;
        let bound: [&[u8]; 2] = [&*self.meta, pack.as_bytes()];
        let key = recipient::receive(DATA_PACK, reader, envelope, &bound)
            .map_err(|_| Damage::NotAuthentic { what: "envelope of a pack" })?;
        Ok(Aead::new(cipher, &key))
    }

    /// A new key for private bytes, and the envelope from which only readers derive it again.
    pub(crate) fn new_private(
        &self,
        cipher: Cipher,
        ephemeral: &[u8; KEY_BYTES],
    ) -> Result<(Aead, [u8; PUBLIC_BYTES]), Damage> {
        let (key, envelope) =
            recipient::send(READERS_ONLY, ephemeral, &self.reader_public_key, &[&*self.meta])
                .map_err(|_| Damage::NotAuthentic { what: "reader's key" })?;
        Ok((Aead::new(cipher, &key), envelope))
    }

    /// The key of private bytes, from their envelope.
    pub(crate) fn private(&self, cipher: Cipher, envelope: &[u8; PUBLIC_BYTES]) -> Result<Aead, Damage> {
        let reader = self.reader_private_key.as_ref().ok_or(Damage::WriteOnlyKey(WriteOnly))?;
        let key = recipient::receive(READERS_ONLY, reader, envelope, &[&*self.meta])
            .map_err(|_| Damage::NotAuthentic { what: "envelope" })?;
        Ok(Aead::new(cipher, &key))
    }
}
