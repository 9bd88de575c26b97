//! Small records as MessagePack maps with field names.

use serde::{Serialize, de::DeserializeOwned};

use crate::damage::Damage;

/// The map.
pub(crate) fn body(record: &impl Serialize) -> Vec<u8> {
    rmp_serde::to_vec_named(record).expect("our records hold only what MessagePack can say")
}

/// Reads a map that fills `bytes` to the end.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], what: &'static str) -> Result<T, Damage> {
    let mut rest = bytes;
    let record = T::deserialize(&mut rmp_serde::Deserializer::new(&mut rest))
        .map_err(|_| Damage::Malformed { what, why: "its fields cannot be read" })?;
    if rest.is_empty() {
        Ok(record)
    } else {
        Err(Damage::Malformed { what, why: "something follows its end" })
    }
}
