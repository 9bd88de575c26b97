//! The people of the installation: which public key is whose. A file that whoever runs the bus writes; services read it
//! again when it has changed, so a person who was removed is known to be gone within a second.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use contract::message::Caller;

/// How long the last look at the file counts.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Names of people by public key. Cloning is cheap. Without a file nobody is listed, and nobody counts as removed.
#[derive(Clone, Debug, Default)]
pub struct People {
    file: Option<Arc<PeopleFile>>,
}

#[derive(Debug)]
struct PeopleFile {
    path: PathBuf,
    read: Mutex<ReadFile>,
}

#[derive(Debug, Default)]
struct ReadFile {
    checked: Option<Instant>,
    modified: Option<SystemTime>,
    /// Name by public key; nothing while the file has not been read yet.
    names: Option<BTreeMap<String, String>>,
}

impl People {
    /// The people in a TOML file: `name = "public nkey"`, a line each.
    pub fn in_file(path: impl Into<PathBuf>) -> People {
        let file = PeopleFile { path: path.into(), read: Mutex::default() };
        People { file: Some(Arc::new(file)) }
    }

    /// The caller of this public key.
    pub(crate) fn person(&self, user: &str) -> Caller {
        let names = self.file.as_ref().and_then(|file| file.names());
        Caller::Person { user: user.into(), name: names.and_then(|names| names.get(user).cloned()) }
    }

    /// Whether a caller is a person who is not listed any more.
    pub fn is_removed(&self, caller: &Caller) -> bool {
        let (Caller::Person { user, .. }, Some(file)) = (caller, &self.file) else { return false };
        file.names().is_some_and(|names| !names.contains_key(user))
    }
}

impl PeopleFile {
    /// What the file says; what it said before where it cannot be read now.
    fn names(&self) -> Option<BTreeMap<String, String>> {
        let mut read = self.read.lock().expect("no code here panics while it holds the lock");
        if read.checked.is_none_or(|checked| checked.elapsed() >= CHECK_INTERVAL) {
            read.checked = Some(Instant::now());
            let modified = std::fs::metadata(&self.path).and_then(|found| found.modified()).ok();
            if modified.is_some() && modified != read.modified {
                match read_names(&self.path) {
                    Ok(names) => (read.names, read.modified) = (Some(names), modified),
                    Err(error) => {
                        tracing::warn!(file = %self.path.display(), error, "the list of people cannot be read")
                    }
                }
            }
        }
        read.names.clone()
    }
}

fn read_names(path: &Path) -> Result<BTreeMap<String, String>, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let keys: BTreeMap<String, String> = toml::from_str(&text).map_err(|error| error.to_string())?;
    Ok(keys.into_iter().map(|(name, key)| (key, name)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_has_the_name_in_the_file_and_counts_as_removed_only_where_a_file_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("people.toml");
        let people = People::in_file(&path);
        let caller = |people: &People, user: &str| people.person(user);
        let unlisted = Caller::Person { user: "UALICE".into(), name: None };
        assert_eq!(caller(&people, "UALICE"), unlisted);
        assert!(!people.is_removed(&unlisted), "a file that is not there removes nobody");
        std::fs::write(&path, "alice = \"UALICE\"\n").expect("written");
        let people = People::in_file(&path);
        assert_eq!(caller(&people, "UALICE").to_string(), "alice");
        assert!(!people.is_removed(&unlisted));
        assert!(people.is_removed(&caller(&people, "UBOB")));
        assert!(!people.is_removed(&Caller::Anonymous));
        assert!(!People::default().is_removed(&unlisted));
    }
}
