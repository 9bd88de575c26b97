//! How a person reaches the bus.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use contract::Realm;
use serde::{Deserialize, Serialize};

use super::exit::{CliError, CliExitCode};
use crate::state::State;
use crate::state::keys::OPERATOR;

/// The advice where the state directory cannot be read.
pub(super) const AS_ROOT: &str = "run as root, or give --url and --key";

/// `{state}/client.toml`, written by `loam up`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientConfig {
    /// Where the bus is.
    pub url: String,
    /// The file with the certificate of the authority of its servers; with one, by TLS only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The file with the person's nkey seed.
    pub key: PathBuf,
    /// The person's name; answers come to `_INBOX_{person}`.
    pub person: String,
    /// The first token of every subject.
    pub realm: Realm,
}

/// Where the bus is and which key opens it: from the state directory, unless options give them.
#[derive(Clone, Debug)]
pub(super) struct BusAddress<'a> {
    /// The state directory.
    pub state: &'a Path,
    /// The URL of the bus, where an option gives it.
    pub url: Option<String>,
    /// The key file, where an option gives it.
    pub key: Option<PathBuf>,
    /// The authority's certificate, where an option gives it.
    pub ca_file: Option<PathBuf>,
}

impl BusAddress<'_> {
    /// Reads `client.toml`; options replace its values. With both --url and --key no file is needed.
    pub(super) fn read(self) -> Result<ClientConfig, CliError> {
        let path = State::at(self.state).client();
        let file = match (&self.url, &self.key, std::fs::read_to_string(&path)) {
            (_, _, Ok(text)) => toml::from_str(&text)
                .map_err(|error| CliError::new(CliExitCode::Usage, format!("{}: {error}", path.display())))?,
            (Some(url), Some(key), Err(_)) => {
                let (url, key) = (url.clone(), key.clone());
                ClientConfig { url, ca_file: None, key, person: OPERATOR.into(), realm: Realm::default() }
            }
            (_, _, Err(error)) => {
                let hint = match error.kind() {
                    ErrorKind::PermissionDenied => AS_ROOT,
                    _ => "is `loam up` running, and --state the same folder?",
                };
                let message = format!("reading {}: {error}; {hint}", path.display());
                return Err(CliError::new(CliExitCode::Unreachable, message));
            }
        };
        Ok(ClientConfig {
            url: self.url.unwrap_or(file.url),
            ca_file: self.ca_file.or(file.ca_file),
            key: self.key.unwrap_or(file.key),
            ..file
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_gives_replaces_the_file_and_does_without_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let read = |url: Option<&str>, key: Option<&str>| {
            let (url, key) = (url.map(str::to_string), key.map(PathBuf::from));
            BusAddress { state: folder.path(), url, key, ca_file: None }.read()
        };
        assert_eq!(read(None, None).expect_err("no file").exit(), CliExitCode::Unreachable);
        assert_eq!(read(Some("nats://a"), Some("/k")).expect("enough").person, "operator");
        let text = "url = \"nats://b\"\nkey = \"/b\"\nperson = \"ada\"\nrealm = \"home\"\n";
        std::fs::write(folder.path().join("client.toml"), text).expect("written");
        let mixed = read(Some("nats://a"), None).expect("read");
        assert_eq!((mixed.url.as_str(), mixed.key, mixed.person.as_str()), ("nats://a", "/b".into(), "ada"));
    }
}
