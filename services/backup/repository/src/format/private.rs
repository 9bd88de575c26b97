//! Bytes for readers only, inside an object that every slot can decrypt.
//!
//! ```text
//!   cipher 1 | epoch 4 | envelope 32 | encrypted( key agreed with the epoch's readers, nonce 0, aad = all before )
//! ```

use serde::{Deserialize, Serialize};

use crate::cursor::Cursor;
use crate::damage::Damage;
use crate::keys::{Cipher, Keys};
use crate::random::random;

const WHAT: &str = "private bytes";
const HEADER_BYTES: usize = 1 + 4 + 32;

/// Bytes that only a slot with the right to read can decrypt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Private(#[serde(with = "serde_bytes")] Vec<u8>);

impl Private {
    pub(crate) fn encrypt(keys: &Keys, text: &[u8]) -> Result<Private, Damage> {
        Private::encrypt_with(keys, text, Cipher::preferred(), &random())
    }

    pub(crate) fn encrypt_with(
        keys: &Keys,
        text: &[u8],
        cipher: Cipher,
        ephemeral: &[u8; 32],
    ) -> Result<Private, Damage> {
        let epoch = keys.current();
        let (key, envelope) = epoch.new_private(cipher, ephemeral)?;
        let mut object = vec![cipher as u8];
        object.extend_from_slice(&epoch.number.to_le_bytes());
        object.extend_from_slice(&envelope);
        let mut encrypted = text.to_vec();
        key.encrypt(0, &object, &mut encrypted);
        object.extend_from_slice(&encrypted);
        Ok(Private(object))
    }

    pub(crate) fn decrypt(&self, keys: &Keys) -> Result<Vec<u8>, Damage> {
        let mut cursor = Cursor::new(&self.0, WHAT);
        let cipher =
            Cipher::from_byte(cursor.u8()?).ok_or_else(|| cursor.malformed("its cipher is unknown"))?;
        let epoch = cursor.u32()?;
        let envelope = cursor.array()?;
        let (bound, encrypted) = self.0.split_at(HEADER_BYTES);
        let mut encrypted = encrypted.to_vec();
        let key = keys.epoch(epoch)?.private(cipher, &envelope)?;
        let length =
            key.decrypt(0, bound, &mut encrypted).map_err(|_| Damage::NotAuthentic { what: WHAT })?.len();
        encrypted.truncate(length);
        Ok(encrypted)
    }
}
