//! Settings, read once: embedded defaults, then a TOML file, then `LOAM__` variables (`LOAM__NATS__URL`).
//!
//! ```toml
//! host = "h1"              # our name among hosts
//! state_dir = "/var/lib/loam"
//! realm = "loam"           # the first token of every subject
//! operations_kept = 10000  # ended operations of this service that are kept on this host
//! health_socket = "/tmp/health.sock"   # where `--check-health` asks; absent: nowhere
//! [nats]
//! url = "nats://127.0.0.1:4222"
//! nkey_file = "/var/lib/loam/keys/backup.nk"
//! ca_file = "/var/lib/loam/ca.pem"  # with one, the bus is connected to by TLS only
//! people_file = "/var/lib/loam/people.toml"
//! [backup]                 # the service's own part, named as the service
//! ```

use std::path::{Path, PathBuf};

use contract::{HostName, Realm, Service};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::files::{FileTrustError, refuse_if_others_can_write};

/// The variable that names the settings file.
const FILE_VARIABLE: &str = "LOAM_CONFIG";

/// The settings that every service has, and the part `S` that is its own.
#[derive(Clone, Debug)]
pub struct Settings<S> {
    /// Our name among hosts.
    pub host: HostName,
    /// Where we keep what outlives us.
    pub state_dir: PathBuf,
    /// The first token of every subject.
    pub realm: Realm,
    /// The bus.
    pub nats: NatsSettings,
    /// How many ended operations of this service and host are kept.
    pub operations_kept: OperationsKept,
    /// The socket on which we answer for our health to our own host; none where absent.
    pub health_socket: Option<PathBuf>,
    /// The service's own part.
    pub service: S,
}

/// Where the bus is and who we are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NatsSettings {
    /// One or several URLs, separated by commas.
    pub url: String,
    /// The file with our nkey seed. Without one no user is named, which only an open server in a test accepts.
    #[serde(default)]
    pub nkey_file: Option<PathBuf>,
    /// The file with the certificate of the authority of the bus's servers (`ca.pem`). With one, TLS only.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The file with names and public keys of people (`people.toml`): without one, people have no names.
    #[serde(default)]
    pub people_file: Option<PathBuf>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A value is missing, wrong or unknown; the text names the key and the file.
    #[error("settings: {0}")]
    InvalidValue(#[from] config::ConfigError),
    /// The file is not to be trusted.
    #[error("settings: {0}")]
    UntrustedFile(#[from] FileTrustError),
}

/// How many ended operations are kept: 100 to 100,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct OperationsKept(u32);

impl OperationsKept {
    /// The number.
    pub fn count(self) -> usize {
        self.0 as usize
    }
}

impl Default for OperationsKept {
    fn default() -> OperationsKept {
        OperationsKept(10_000)
    }
}

impl TryFrom<u32> for OperationsKept {
    type Error = &'static str;
    fn try_from(count: u32) -> Result<OperationsKept, &'static str> {
        if (100..=100_000).contains(&count) {
            Ok(OperationsKept(count))
        } else {
            Err("operations_kept is a number from 100 to 100000")
        }
    }
}

#[derive(Deserialize)]
struct Common {
    host: HostName,
    state_dir: PathBuf,
    #[serde(default)]
    realm: Realm,
    nats: NatsSettings,
    #[serde(default)]
    operations_kept: OperationsKept,
    #[serde(default)]
    health_socket: Option<PathBuf>,
}

/// Reads the settings of a service. The file is the one that `LOAM_CONFIG` names, if it names one.
///
/// # Errors
/// What is wrong with which setting, and where it was set.
pub fn load<S: DeserializeOwned>(service: Service, defaults: &str) -> Result<Settings<S>, SettingsError> {
    let file = std::env::var_os(FILE_VARIABLE).map(PathBuf::from);
    load_from(service, defaults, file.as_deref())
}

fn load_from<S: DeserializeOwned>(
    service: Service,
    defaults: &str,
    file: Option<&Path>,
) -> Result<Settings<S>, SettingsError> {
    let mut builder = config::Config::builder()
        .set_default("host", "localhost")?
        .set_default("state_dir", "/var/lib/loam")?
        .set_default("nats.url", "nats://127.0.0.1:4222")?
        .add_source(config::File::from_str(defaults, config::FileFormat::Toml));
    if let Some(path) = file {
        refuse_if_others_can_write(path)?;
        builder = builder.add_source(config::File::from(path.to_path_buf()).format(config::FileFormat::Toml));
    }
    let environment = config::Environment::with_prefix("LOAM").prefix_separator("__").separator("__");
    let all = builder.add_source(environment.try_parsing(true)).build()?;
    let common: Common = all.clone().try_deserialize()?;
    let own = match all.get::<config::Value>(service.name()) {
        Ok(part) => part.try_deserialize::<S>()?,
        // A service without settings of its own: an empty part, so that missing keys are named.
        Err(config::ConfigError::NotFound(_)) => {
            config::Value::new(None, config::ValueKind::Table(config::Map::new())).try_deserialize::<S>()?
        }
        Err(error) => return Err(error.into()),
    };
    for path in [&common.nats.nkey_file, &common.nats.ca_file, &common.nats.people_file].into_iter().flatten()
    {
        refuse_if_others_can_write(path)?;
    }
    let Common { host, state_dir, realm, nats, operations_kept, health_socket } = common;
    Ok(Settings { host, state_dir, realm, nats, operations_kept, health_socket, service: own })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Own {
        store: String,
        #[serde(default)]
        workers: u32,
    }

    fn load_text(text: &str) -> Result<Settings<Own>, SettingsError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("loam.toml");
        std::fs::write(&path, text).expect("written");
        load_from(Service::Backup, "[backup]\nstore = \"file:///x\"", Some(&path))
    }

    #[test]
    fn the_file_goes_over_the_defaults() {
        let settings = load_text("host = \"h1\"\n[backup]\nworkers = 2").expect("read");
        assert_eq!(
            (settings.host.as_str(), settings.service.workers, settings.service.store.as_str()),
            ("h1", 2, "file:///x")
        );
    }

    #[test]
    fn the_number_of_operations_kept_has_bounds() {
        assert_eq!(load_text("operations_kept = 250").expect("read").operations_kept.count(), 250);
        assert_eq!(load_text("").expect("read").operations_kept, OperationsKept::default());
        for wrong in ["99", "100001", "-1", "\"many\""] {
            load_text(&format!("operations_kept = {wrong}")).expect_err(wrong);
        }
    }

    #[test]
    fn an_unknown_key_and_a_wrong_value_are_named() {
        let unknown = load_text("[backup]\nworkerz = 2").expect_err("unknown").to_string();
        assert!(unknown.contains("workerz"), "{unknown}");
        let wrong = load_text("[backup]\nworkers = \"many\"").expect_err("wrong").to_string();
        assert!(wrong.contains("workers"), "{wrong}");
    }
}
