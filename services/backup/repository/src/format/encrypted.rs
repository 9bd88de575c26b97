//! A small object, encrypted with a key of its own and bound to its name.
//!
//! ```text
//!   "LOAMSEAL" | version 2 | cipher 1 | 0 × 1 | epoch 4 | salt 32 |
//!   encrypted( object key of epoch and salt, nonce 0, aad = all before | name in the store )
//! ```
//!
//! Used for snapshots, holds, index shards, lists of condemned packs, and times of verifications and locks. An object
//! copied to another name does not decrypt.

use object_store::path::Path;

use super::header;
use crate::cursor::Cursor;
use crate::damage::{Damage, FORMAT_VERSION};
use crate::keys::{Cipher, Keys, TAG_BYTES};
use crate::random::random;

const MAGIC: &[u8; 8] = b"LOAMSEAL";
const HEADER_BYTES: usize = 8 + 2 + 1 + 1 + 4 + 32;

/// The random parts of an encrypted object.
pub(crate) struct ObjectEncryptionParams {
    pub(crate) salt: [u8; 32],
    pub(crate) cipher: Cipher,
}

pub(crate) fn encrypt(keys: &Keys, name: &Path, text: Vec<u8>) -> Vec<u8> {
    encrypt_with(keys, name, text, &ObjectEncryptionParams { salt: random(), cipher: Cipher::preferred() })
}

pub(crate) fn encrypt_with(
    keys: &Keys,
    name: &Path,
    mut text: Vec<u8>,
    seed: &ObjectEncryptionParams,
) -> Vec<u8> {
    let epoch = keys.current();
    let mut object = Vec::with_capacity(HEADER_BYTES + text.len() + TAG_BYTES);
    object.extend_from_slice(MAGIC);
    object.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    object.extend_from_slice(&[seed.cipher as u8, 0]);
    object.extend_from_slice(&epoch.number.to_le_bytes());
    object.extend_from_slice(&seed.salt);
    let bound = [&object, name.as_ref().as_bytes()].concat();
    epoch.object(seed.cipher, &seed.salt).encrypt(0, &bound, &mut text);
    object.extend_from_slice(&text);
    object
}

pub(crate) fn decrypt(
    keys: &Keys,
    name: &Path,
    what: &'static str,
    object: &[u8],
) -> Result<Vec<u8>, Damage> {
    let mut cursor = Cursor::new(header(MAGIC, what, object)?, what);
    let cipher = Cipher::from_byte(cursor.u8()?).ok_or_else(|| cursor.malformed("its cipher is unknown"))?;
    cursor.u8()?;
    let epoch = cursor.u32()?;
    let salt = cursor.array()?;
    let bound = [&object[..HEADER_BYTES], name.as_ref().as_bytes()].concat();
    let mut text = object[HEADER_BYTES..].to_vec();
    let length = keys
        .epoch(epoch)?
        .object(cipher, &salt)
        .decrypt(0, &bound, &mut text)
        .map_err(|_| Damage::NotAuthentic { what })?
        .len();
    text.truncate(length);
    Ok(text)
}
