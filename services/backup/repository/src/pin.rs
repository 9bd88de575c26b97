//! What this host has seen of a repository's keys, so that the store cannot replace them.
//!
//! An attacker who controls the store could show a host another key roster: an old one, in which a removed key is still
//! valid, or, to a host whose identity file holds no public key of the repository, a forged one. So the first opening
//! writes the authority and the number of the roster to the cache folder, and later ones compare.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::damage::Damage;
use crate::format::packed;
use crate::keys::Keys;

const FILE: &str = "pin";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyPin {
    #[serde(with = "serde_bytes")]
    authority: [u8; 32],
    roster: u64,
}

/// The store shows other keys than before.
#[derive(Debug, thiserror::Error)]
pub enum KeyPinError {
    /// Another authority.
    #[error(
        "the repository's keys are not those that this host has seen before: they may have been replaced by an attacker \
         (if you replaced them, remove {pin})"
    )]
    OtherAuthority {
        /// The pin file.
        pin: PathBuf,
    },
    /// An older roster.
    #[error(
        "the store shows key roster {shown}, and this host has seen {seen}: an attacker may have put an old one back \
         (if you restored the store, remove {pin})"
    )]
    RolledBack {
        /// The number shown.
        shown: u64,
        /// The number seen before.
        seen: u64,
        /// The pin file.
        pin: PathBuf,
    },
    /// The pin cannot be read or written.
    #[error("could not {attempt} {path}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// The pin file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
}

pub(crate) fn decode(note: &[u8]) -> Result<KeyPin, Damage> {
    packed::decode(note, "pin")
}

/// Compares keys with the pin in `folder`, and updates it.
pub(crate) fn check_and_update(folder: &Path, keys: &Keys) -> Result<(), KeyPinError> {
    let path = folder.join(FILE);
    let failed = |attempt| {
        let path = path.clone();
        move |source| KeyPinError::Io { attempt, path, source }
    };
    let shown = KeyPin { authority: *keys.authority(), roster: keys.roster() };
    let seen = match fs::read(&path) {
        Ok(bytes) => {
            decode(&bytes).map(Some).map_err(|damage| failed("read")(std::io::Error::other(damage)))?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("read")(error)),
    };
    match seen {
        Some(seen) if seen.authority != shown.authority => {
            return Err(KeyPinError::OtherAuthority { pin: path });
        }
        Some(seen) if seen.roster > shown.roster => {
            return Err(KeyPinError::RolledBack { shown: shown.roster, seen: seen.roster, pin: path });
        }
        Some(seen) if seen == shown => return Ok(()),
        _ => {}
    }
    let write = || {
        // Several processes, and several parts of one, may do this at the same time.
        let mut beside = tempfile::Builder::new().prefix("pin.").suffix(".new").tempfile_in(folder)?;
        beside.write_all(&packed::body(&shown))?;
        beside.as_file().sync_all()?;
        beside.persist(&path).map(drop).map_err(|error| error.error)
    };
    write().map_err(failed("write"))
}
