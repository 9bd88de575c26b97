//! How a person reaches the bus.

use std::path::PathBuf;

use contract::Realm;
use serde::{Deserialize, Serialize};

/// `{state}/client.toml`, written by `loam up`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientFile {
    /// Where the bus is.
    pub url: String,
    /// The file with the person's nkey seed.
    pub key: PathBuf,
    /// The person's name; answers come to `_INBOX_{person}`.
    pub person: String,
    /// The first token of every subject.
    pub realm: Realm,
}
