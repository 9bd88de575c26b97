//! The keys of one host: an nkey for each role, made at the first start and kept.
//!
//! A seed is read from its file only to sign; the NATS server gets public keys only, and no seed is ever an argument or a
//! variable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use contract::permissions::{Account, User};
pub use contract::secret::OPERATOR;
use contract::{Service, bucket};
use nkeys::KeyPair;

use super::{State, StateDirError, write_private, write_public};

/// The store's key, as the backup service reads it.
const BACKUP_KEY_BYTES: usize = 32;

/// The public keys that the NATS server accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsPublicKeys {
    /// Every user with its public nkey.
    pub users: Vec<(User, String)>,
}

impl NatsPublicKeys {
    /// The users of an account.
    pub fn of(&self, account: Account) -> impl Iterator<Item = (&User, &str)> {
        let users = self.users.iter().filter(move |(user, _)| user.account() == account);
        users.map(|(user, key)| (user, key.as_str()))
    }

    /// People by name.
    pub fn people(&self) -> impl Iterator<Item = (&str, &str)> {
        self.users.iter().filter_map(|(user, key)| match user {
            User::Person(name) => Some((name.as_str(), key.as_str())),
            User::Service(_) | User::Bootstrap(_) => None,
        })
    }
}

/// The users that an installation has from its first start on.
pub fn first_users() -> Vec<User> {
    let bootstraps = Service::ALL.into_iter().filter(|service| !bucket::of_service(*service).is_empty());
    Service::ALL
        .into_iter()
        .map(User::Service)
        .chain(bootstraps.map(User::Bootstrap))
        .chain([User::Person(OPERATOR.into())])
        .collect()
}

/// The folder, in that of all keys, with the keys of bootstrap users.
pub fn bootstrap_folder(folder: &Path) -> PathBuf {
    folder.join("bootstrap")
}

/// The file of a user's seed. Those of bootstrap users are for `loam bus tables` alone.
pub fn file_of(folder: &Path, user: &User) -> PathBuf {
    match user {
        User::Service(service) => folder.join(format!("{service}.nk")),
        User::Bootstrap(service) => bootstrap_folder(folder).join(format!("{service}.nk")),
        User::Person(name) => folder.join(format!("{name}.nk")),
    }
}

/// Makes every key that does not exist yet, and reads the public keys.
pub fn prepare(state: &State) -> Result<NatsPublicKeys, StateDirError> {
    let folder = state.keys();
    let backup_key = state.backup_key();
    if exists(&backup_key)? {
        chassis::refuse_if_others_can_write(&backup_key)?;
    } else {
        let bytes: [u8; BACKUP_KEY_BYTES] = rand::random();
        write_private(&backup_key, format!("{}\n", hex::encode(bytes)).as_bytes())?;
    }
    // Who else can read it, and whether it can be used, is for the provisioner to say: VMs run without it.
    let rows_key = state.rows_key();
    if !exists(&rows_key)? {
        write_private(&rows_key, encryption::new_key(rand::random()).as_bytes())?;
    }
    let with_key = |user: User| Ok((user.clone(), user_key(&file_of(&folder, &user))?));
    let users: Result<Vec<_>, StateDirError> = first_users().into_iter().map(with_key).collect();
    Ok(NatsPublicKeys { users: users? })
}

/// Writes the names and public keys of people, for the services: who asked is shown by name.
pub fn write_people(state: &State, keys: &NatsPublicKeys) -> Result<(), StateDirError> {
    let people: BTreeMap<&str, &str> = keys.people().collect();
    let text = toml::to_string(&people).expect("names and keys are plain text");
    write_public(&state.people(), text.as_bytes())
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
        let rows_key = std::fs::read_to_string(state.rows_key()).expect("there");
        assert!(encryption::RowKeys::parse(&rows_key).is_ok());
        assert_eq!(prepare(&state).expect("kept"), first);
        assert_eq!(std::fs::read_to_string(state.backup_key()).expect("there"), store_key);
        assert_eq!(std::fs::read_to_string(state.rows_key()).expect("there"), rows_key);
        let files =
            std::fs::read_dir(state.keys()).expect("readable").map(|entry| entry.expect("readable").path());
        let mut keys: Vec<PathBuf> = files.filter(|path| path.is_file()).collect();
        // Those of the services and of the operator, the repository's, and that of rows.
        assert_eq!(keys.len(), Service::ALL.len() + 3, "{keys:?}");
        keys.extend(first_users().iter().map(|user| file_of(&state.keys(), user)));
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
        std::fs::write(file_of(&state.keys(), &User::Service(Service::Proxy)), "nonsense").expect("written");
        let error = prepare(&state).expect_err("damaged").to_string();
        assert!(error.contains("proxy.nk"), "{error}");
    }
}
