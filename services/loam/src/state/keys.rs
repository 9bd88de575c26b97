//! The keys of one host: an nkey for each role, made at the first start and kept.
//!
//! A seed is read from its file only to sign; the NATS server gets public keys only, and no seed is ever an argument or a
//! variable.

use std::path::{Path, PathBuf};

use contract::Service;
use nkeys::KeyPair;

use super::{State, StateDirError, write_private};

/// The person whose key is made at the first start.
pub const OPERATOR: &str = "operator";
const BOOTSTRAP: &str = "bootstrap";
/// The store's key, as the backup service reads it.
const BACKUP_KEY_BYTES: usize = 32;

/// The public keys that the NATS server accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsPublicKeys {
    /// One for each service, the supervisor included.
    pub services: Vec<(Service, String)>,
    /// The role that makes the buckets.
    pub bootstrap: String,
    /// People by name.
    pub people: Vec<(String, String)>,
}

/// The file of a service's seed.
pub fn of_service(folder: &Path, service: Service) -> PathBuf {
    folder.join(format!("{service}.nk"))
}

/// The file of the bootstrap role's seed.
pub fn of_bootstrap(folder: &Path) -> PathBuf {
    folder.join(format!("{BOOTSTRAP}.nk"))
}

/// The file of a person's seed.
pub fn of_person(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.nk"))
}

/// Makes every key that does not exist yet, and reads the public keys.
pub fn prepare(state: &State) -> Result<NatsPublicKeys, StateDirError> {
    let folder = state.keys();
    let mut services = Vec::new();
    for service in Service::ALL {
        services.push((service, user_key(&of_service(&folder, service))?));
    }
    let backup_key = state.backup_key();
    if exists(&backup_key)? {
        chassis::refuse_if_others_can_write(&backup_key)?;
    } else {
        let bytes: [u8; BACKUP_KEY_BYTES] = rand::random();
        write_private(&backup_key, format!("{}\n", hex::encode(bytes)).as_bytes())?;
    }
    Ok(NatsPublicKeys {
        services,
        bootstrap: user_key(&of_bootstrap(&folder))?,
        people: vec![(OPERATOR.into(), user_key(&of_person(&folder, OPERATOR))?)],
    })
}

fn exists(path: &Path) -> Result<bool, StateDirError> {
    path.try_exists().map_err(StateDirError::disk("looking for", path))
}

/// Reads a user's key, or makes it.
fn user_key(path: &Path) -> Result<String, StateDirError> {
    if !exists(path)? {
        let pair = KeyPair::new_user();
        let seed = pair.seed().expect("a pair that was just made has a seed");
        write_private(path, format!("{seed}\n").as_bytes())?;
        return Ok(pair.public_key());
    }
    chassis::refuse_if_others_can_write(path)?;
    let text = std::fs::read_to_string(path).map_err(StateDirError::disk("reading", path))?;
    let pair = KeyPair::from_seed(text.trim()).ok();
    pair.map(|pair| pair.public_key())
        .filter(|public| public.starts_with('U'))
        .ok_or_else(|| StateDirError::NotAKey { path: path.into() })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn keys_are_made_once_kept_and_readable_by_nobody_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::at(folder.path());
        state.prepare().expect("made");
        let first = prepare(&state).expect("made");
        let store_key = std::fs::read_to_string(state.backup_key()).expect("there");
        assert_eq!(store_key.trim().len(), 64);
        assert_eq!(prepare(&state).expect("kept"), first);
        assert_eq!(std::fs::read_to_string(state.backup_key()).expect("there"), store_key);
        let files =
            std::fs::read_dir(state.keys()).expect("readable").map(|entry| entry.expect("readable").path());
        let keys: Vec<PathBuf> = files.filter(|path| path.is_file()).collect();
        assert_eq!(keys.len(), Service::ALL.len() + 3, "{keys:?}");
        for key in keys {
            let mode = std::fs::metadata(&key).expect("there").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{}", key.display());
        }
    }

    #[test]
    fn a_damaged_key_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = State::at(folder.path());
        state.prepare().expect("made");
        std::fs::write(of_service(&state.keys(), Service::Proxy), "nonsense").expect("written");
        let error = prepare(&state).expect_err("damaged").to_string();
        assert!(error.contains("proxy.nk"), "{error}");
    }
}
