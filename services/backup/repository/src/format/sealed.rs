//! A small object sealed under a key of its own and bound to its name.
//!
//! ```text
//!   "LOAMSEAL" | version 2 | salt 32 | AES-256-GCM( key of the salt, nonce 0, bound = all before | name )
//! ```
//!
//! Used for snapshots, index shards, leases and lists of condemned packs. An object copied to another name does
//! not open.

use object_store::path::Path;

use super::{Damage, VERSION, header};
use crate::keys::{Keys, random};

const MAGIC: &[u8; 8] = b"LOAMSEAL";
const HEADER_BYTES: usize = 8 + 2 + 32;

pub(crate) fn seal(keys: &Keys, name: &Path, mut text: Vec<u8>) -> Vec<u8> {
    let salt: [u8; 32] = random();
    let mut object = Vec::with_capacity(HEADER_BYTES + text.len() + crate::keys::TAG_BYTES);
    object.extend_from_slice(MAGIC);
    object.extend_from_slice(&VERSION.to_le_bytes());
    object.extend_from_slice(&salt);
    let bound = [&object, name.as_ref().as_bytes()].concat();
    keys.object(&salt).seal(0, &bound, &mut text);
    object.extend_from_slice(&text);
    object
}

pub(crate) fn open(keys: &Keys, name: &Path, what: &'static str, object: &[u8]) -> Result<Vec<u8>, Damage> {
    let rest = header(MAGIC, what, object)?;
    let (salt, sealed) =
        rest.split_first_chunk::<32>().ok_or(Damage::Malformed { what, why: "it ends in its header" })?;
    let bound = [&object[..HEADER_BYTES], name.as_ref().as_bytes()].concat();
    let mut text = sealed.to_vec();
    let length =
        keys.object(salt).open(0, &bound, &mut text).map_err(|_| Damage::NotAuthentic { what })?.len();
    text.truncate(length);
    Ok(text)
}
