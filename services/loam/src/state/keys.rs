//! The keys of one host: an nkey for each role, made at the first start and kept.
//!
//! A seed is read from its file only to sign; the NATS server gets public keys only, and no seed is ever an argument or a
//! variable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use contract::permissions::{Account, User};
pub use contract::secret::OPERATOR;
use contract::{Service, bucket};
use nkeys::{KeyPair, KeyPairType};
use sha2::{Digest, Sha256};

use super::{State, StateDirError, access, write_private, write_public};

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

    /// A key that follows from all of these: whoever knows them can make it, and it has no rights.
    pub fn probe(&self) -> KeyPair {
        let mut digest = Sha256::new();
        for (user, key) in &self.users {
            digest.update(format!("{user} {key}\n"));
        }
        KeyPair::new_from_raw(KeyPairType::User, digest.finalize().into()).expect("32 bytes are a seed")
    }
}

/// Names of people, each with its public nkey.
pub type PeopleKeys = BTreeMap<String, String>;

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
        User::JoiningHost(host) => folder.join(format!("joining-{host}.nk")),
    }
}

/// The file of a key that is to replace a user's, until every server knows it.
pub fn next_file_of(folder: &Path, user: &User) -> PathBuf {
    file_of(folder, user).with_extension("nk.next")
}

/// Makes every key that does not exist yet, and the list of people, which names the operator at first. Reads the public
/// keys of this host's services, those that replace them included, and of people.
pub fn prepare(state: &State) -> Result<NatsPublicKeys, StateDirError> {
    prepare_encryption_keys(state)?;
    let folder = state.keys();
    let mut users = Vec::new();
    for user in first_users() {
        let key = user_key(&file_of(&folder, &user))?;
        match &user {
            User::Person(name) if !exists(&state.people())? => {
                write_people(state, &PeopleKeys::from([(name.clone(), key)]))?;
            }
            User::Person(_) | User::JoiningHost(_) => {}
            User::Service(_) | User::Bootstrap(_) => {
                let next = next_file_of(&folder, &user);
                if exists(&next)? {
                    users.push((user.clone(), user_key(&next)?));
                }
                users.push((user, key));
            }
        }
    }
    users.extend(read_people(state)?.into_iter().map(|(name, key)| (User::Person(name), key)));
    Ok(NatsPublicKeys { users })
}

/// Makes the keys of the built-in backup store and of rows, where there are none.
pub fn prepare_encryption_keys(state: &State) -> Result<(), StateDirError> {
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
    Ok(())
}

/// Reads the names and public keys of people.
pub fn read_people(state: &State) -> Result<PeopleKeys, StateDirError> {
    let path = state.people();
    let text = std::fs::read_to_string(&path).map_err(StateDirError::disk("reading", &path))?;
    toml::from_str(&text).map_err(|error| StateDirError::unreadable(&path, error))
}

/// Writes the names and public keys of people: services read them, too, to show by name who asked.
pub fn write_people(state: &State, people: &PeopleKeys) -> Result<(), StateDirError> {
    let text = toml::to_string(people).expect("names and keys are plain text");
    write_public(&state.people(), text.as_bytes())
}

/// Replaces a user's key by its next one, where there is one.
pub fn put_next_in_place(folder: &Path, user: &User) -> Result<(), StateDirError> {
    let (file, next) = (file_of(folder, user), next_file_of(folder, user));
    if !exists(&next)? {
        return Ok(());
    }
    let failed = |error| StateDirError::disk("replacing", &file)(error);
    // Its service may run as another user.
    access::like(&file, &next).and_then(|()| std::fs::rename(&next, &file)).map_err(failed)?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

/// Reads the key in a file, or makes it; returns the pair.
pub fn read_or_make(path: &Path) -> Result<KeyPair, StateDirError> {
    user_key(path)?;
    read_pair(path)
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
    read_pair(path).map(|pair| pair.public_key())
}

/// Reads a user's key.
pub fn read_pair(path: &Path) -> Result<KeyPair, StateDirError> {
    chassis::refuse_if_others_can_write(path)?;
    let text = std::fs::read_to_string(path).map_err(StateDirError::disk("reading", path))?;
    let pair = KeyPair::from_seed(text.trim()).ok();
    pair.filter(|pair| pair.key_pair_type() == KeyPairType::User)
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
