//! The hosts that joined the bus, and the tokens of those that may: `nats/hosts.toml`. Public keys only.

use std::collections::BTreeMap;

use contract::{HostName, Service, Timestamp};
use serde::{Deserialize, Serialize};

use crate::state::{State, StateDirError, write_private};

/// The file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hosts {
    /// The hosts that joined.
    #[serde(default)]
    pub hosts: BTreeMap<HostName, AdmittedHost>,
    /// A token for each host that may join.
    #[serde(default)]
    pub tokens: BTreeMap<HostName, JoinToken>,
}

/// A host that joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdmittedHost {
    /// The public key of the token with which it joined.
    pub token: String,
    /// When it joined.
    pub joined: Timestamp,
    /// The public keys of its services.
    pub keys: BTreeMap<Service, String>,
}

/// A join token; its private half is in the token alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinToken {
    /// Its public key.
    pub public_key: String,
    /// When it stops to be valid.
    pub expires: Timestamp,
}

impl Hosts {
    /// Reads the file; empty where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(state: &State) -> Result<Hosts, StateDirError> {
        let path = state.admitted();
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).map_err(|error| StateDirError::unreadable(&path, error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Hosts::default()),
            Err(error) => Err(StateDirError::disk("reading", &path)(error)),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, state: &State) -> Result<(), StateDirError> {
        let text = toml::to_string(self).expect("names, keys and times are plain text");
        write_private(&state.admitted(), text.as_bytes())
    }

    /// Removes tokens that are not valid any more; returns whether there were any.
    pub fn drop_expired(&mut self, now: Timestamp) -> bool {
        let before = self.tokens.len();
        self.tokens.retain(|_, token| token.expires > now);
        self.tokens.len() < before
    }
}
