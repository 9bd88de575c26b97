//! The config object: it makes a location a repository, and holds the parameters that all writers share.
//!
//! ```text
//!   "LOAMREPO" | version 2 | signature 64 | MessagePack
//!   { repository 16, created_unix_ms, chunking, streams, store, object_lock }
//!
//!   chunking   { algorithm, segment_bytes, chunk_bytes_min, chunk_bytes_avg, chunk_bytes_max, hole_bytes_min }
//!              algorithm: "fast_cdc2020_level1", or "aligned_ghash_aes", see chunker/aligned.rs
//!   streams    { algorithm "fast_cdc2020_level1", chunk_bytes_min, chunk_bytes_avg, chunk_bytes_max }
//!   store      { create_if_absent, lists_what_was_written, object_lock, checksums, deletes_many }; the last three only
//!              if true
//!   object_lock   { mode "governance" | "compliance", days }, left out where nothing is locked
//!   signature  of the MessagePack, for the purpose "loam repository v1 config"
//! ```
//!
//! It is not encrypted, so that software without the key can recognise it; the authority's signature proves that the
//! parameters were not changed.

use serde::{Deserialize, Serialize};

use super::{header, packed};
use crate::chunker::{Chunking, StreamChunking};
use crate::damage::{Damage, FORMAT_VERSION};
use crate::ids::RepositoryId;
use crate::keys::{Keys, SIGNATURE_BYTES};
use crate::store::{Capabilities, ObjectLock};

const MAGIC: &[u8; 8] = b"LOAMREPO";
const WHAT: &str = "repository config";
const PURPOSE: &str = "loam repository v1 config";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) repository: RepositoryId,
    pub(crate) created_unix_ms: u64,
    pub(crate) chunking: Chunking,
    #[serde(rename = "streams")]
    pub(crate) stream_chunking: StreamChunking,
    /// What the store was seen to be able to do when the repository was made.
    pub(crate) store: Capabilities,
    /// The Object Lock of packs, snapshots, rosters and this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) object_lock: Option<ObjectLock>,
}

/// A config that was read but not yet authenticated, because the keys come after it.
pub(crate) struct UnverifiedConfig {
    pub(crate) config: Config,
    body: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
}

impl Config {
    pub(crate) fn encode(&self, keys: &Keys) -> Result<Vec<u8>, Damage> {
        let body = packed::body(self);
        let mut object = MAGIC.to_vec();
        object.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        object.extend_from_slice(&keys.sign(PURPOSE, &body).map_err(Damage::WriteOnlyKey)?);
        object.extend_from_slice(&body);
        Ok(object)
    }

    pub(crate) fn decode(object: &[u8]) -> Result<UnverifiedConfig, Damage> {
        let rest = header(MAGIC, WHAT, object)?;
        let (signature, body) =
            rest.split_first_chunk().ok_or(Damage::Malformed { what: WHAT, why: "it ends in its header" })?;
        let config: Config = packed::decode(body, WHAT)?;
        if !config.chunking.is_usable() || !config.stream_chunking.is_usable() {
            return Err(Damage::Malformed { what: WHAT, why: "its chunking parameters make no sense" });
        }
        Ok(UnverifiedConfig { config, body: body.to_vec(), signature: *signature })
    }
}

impl UnverifiedConfig {
    /// The config, after the check of its signature.
    pub(crate) fn authenticate(self, keys: &Keys) -> Result<Config, Damage> {
        if keys.is_signed(PURPOSE, &self.body, &self.signature) {
            Ok(self.config)
        } else {
            Err(Damage::NotAuthentic { what: WHAT })
        }
    }
}
