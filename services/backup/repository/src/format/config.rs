//! The config object: what makes a place a repository, and the parameters that all writers share.
//!
//! ```text
//!   "LOAMREPO" | version 2 | MAC 32 | MessagePack { repository, created, chunking }
//! ```
//!
//! It is in the clear, so that software without the key can say what it sees; the MAC under the master key proves
//! that nobody changed the parameters.

use serde::{Deserialize, Serialize};

use super::{Damage, RepositoryId, VERSION, header, packed};
use crate::chunker::Chunking;
use crate::keys::Keys;

const MAGIC: &[u8; 8] = b"LOAMREPO";
const WHAT: &str = "repository config";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) repository: RepositoryId,
    pub(crate) created_unix_ms: u64,
    pub(crate) chunking: Chunking,
}

/// A config that was read but not yet authenticated, because the keys come after it.
pub(crate) struct Claimed {
    pub(crate) config: Config,
    body: Vec<u8>,
    mac: blake3::Hash,
}

impl Config {
    pub(crate) fn encode(&self, keys: &Keys) -> Vec<u8> {
        let body = packed::body(self);
        let mut object = MAGIC.to_vec();
        object.extend_from_slice(&VERSION.to_le_bytes());
        object.extend_from_slice(keys.config_mac(&body).as_bytes());
        object.extend_from_slice(&body);
        object
    }

    pub(crate) fn decode(object: &[u8]) -> Result<Claimed, Damage> {
        let rest = header(MAGIC, WHAT, object)?;
        let (mac, body) = rest
            .split_first_chunk::<32>()
            .ok_or(Damage::Malformed { what: WHAT, why: "it ends in its header" })?;
        let config: Config = packed::decode(body, WHAT)?;
        if !config.chunking.is_usable() {
            return Err(Damage::Malformed { what: WHAT, why: "its chunking parameters make no sense" });
        }
        Ok(Claimed { config, body: body.to_vec(), mac: blake3::Hash::from_bytes(*mac) })
    }
}

impl Claimed {
    /// The config, once the keys vouch for it.
    pub(crate) fn authenticate(self, keys: &Keys) -> Result<Config, Damage> {
        if keys.config_mac(&self.body) == self.mac {
            Ok(self.config)
        } else {
            Err(Damage::NotAuthentic { what: WHAT })
        }
    }
}
