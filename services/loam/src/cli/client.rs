//! How a person reaches the bus.

use std::path::{Path, PathBuf};

use contract::Realm;
use serde::{Deserialize, Serialize};

use super::exit::{Exit, Trouble};
use crate::state::State;
use crate::state::keys::OPERATOR;

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

/// Where a command looks for the bus: in the state folder, unless the person says otherwise.
#[derive(Clone, Debug)]
pub(super) struct Whereabouts<'a> {
    /// The state folder.
    pub state: &'a Path,
    /// The bus, where the person named it.
    pub url: Option<String>,
    /// The key, where the person named it.
    pub key: Option<PathBuf>,
}

impl Whereabouts<'_> {
    /// Reads `client.toml` and lets the person's own words go over it. Who names bus and key needs no file.
    pub(super) fn look_up(self) -> Result<ClientFile, Trouble> {
        let path = State::at(self.state).client();
        let file = match (&self.url, &self.key, std::fs::read_to_string(&path)) {
            (_, _, Ok(text)) => toml::from_str(&text)
                .map_err(|error| Trouble::new(Exit::Usage, format!("{}: {error}", path.display())))?,
            (Some(url), Some(key), Err(_)) => {
                let (url, key) = (url.clone(), key.clone());
                ClientFile { url, key, person: OPERATOR.into(), realm: Realm::default() }
            }
            (_, _, Err(error)) => {
                let hint = "is `loam up` running, and --state the same folder?";
                let sentence = format!("reading {}: {error}; {hint}", path.display());
                return Err(Trouble::new(Exit::Unreachable, sentence));
            }
        };
        Ok(ClientFile { url: self.url.unwrap_or(file.url), key: self.key.unwrap_or(file.key), ..file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_persons_own_words_go_over_the_file_and_do_without_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let look = |url: Option<&str>, key: Option<&str>| {
            let (url, key) = (url.map(str::to_string), key.map(PathBuf::from));
            Whereabouts { state: folder.path(), url, key }.look_up()
        };
        assert_eq!(look(None, None).expect_err("no file").exit(), Exit::Unreachable);
        assert_eq!(look(Some("nats://a"), Some("/k")).expect("enough").person, "operator");
        let text = "url = \"nats://b\"\nkey = \"/b\"\nperson = \"ada\"\nrealm = \"home\"\n";
        std::fs::write(folder.path().join("client.toml"), text).expect("written");
        let mixed = look(Some("nats://a"), None).expect("read");
        assert_eq!((mixed.url.as_str(), mixed.key, mixed.person.as_str()), ("nats://a", "/b".into(), "ada"));
    }
}
