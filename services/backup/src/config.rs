//! The settings of the backup service, read once at its start.
//!
//! ```toml
//! [backup]
//! store = "s3://bucket/prefix"        # or file:///folder; without it the folder "store" of the state folder
//! key_file = "/etc/loam/store.key"    # or passphrase_file; without either "keys/backup.key" of the state folder
//! create_repository = false           # true: create a repository where nothing was before
//! memory_budget = "960M"              # for all that read and write the repository together
//! compression = 1                     # of what is new: a level of zstd from 1 (fast) to 19 (small), or "none"
//! [backup.s3]                         # only for s3://
//! endpoint = "http://127.0.0.1:8333"  # without it AWS itself
//! region = "us-east-1"
//! access_key_id = "loam"
//! secret_access_key_file = "/etc/loam/s3.secret"
//! ```
//!
//! A file that holds a secret may be read and written by its owner only.

use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_repository::{
    CollectSettings, Compression, EngineSettings, KdfCost, ParseCompressionError, S3Settings, StoreSettings,
    StoreSettingsError, StoreUrl,
};
use chassis::{FileTrustError, Settings, refuse_if_others_have_access};
use contract::ByteCount;
use contract::amount::InvalidSize;
use serde::{Deserialize, Deserializer};

use crate::actors::{COPIES_MAX, MAINTENANCE_MAX, READS_MAX};
use crate::adapters::repository::{RepositoryConfig, RepositoryCreation, SecretFile};

/// Enough for the five operations that move data at one time, on a host of 2 GiB.
const MEMORY_BUDGET: ByteCount = ByteCount::mib(960);
/// How often the store is checked and listed. This service is the only one that writes there, so the list rarely
/// surprises.
const REFRESH_INTERVAL: Duration = Duration::from_secs(30);
const REGION: &str = "us-east-1";

/// The table `[backup]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The URL of the store.
    #[serde(default)]
    pub store: Option<String>,
    /// How an S3 store is reached.
    #[serde(default)]
    pub s3: Option<S3>,
    /// The file of random bytes that opens the repository.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// The file with a passphrase that opens the repository.
    #[serde(default)]
    pub passphrase_file: Option<PathBuf>,
    /// Whether to create a repository where nothing was before.
    #[serde(default)]
    pub create_repository: bool,
    /// Memory for the buffers of all operations that move data, in bytes, together.
    #[serde(default = "memory_budget", deserialize_with = "size")]
    pub memory_budget: ByteCount,
    /// How new data is compressed: a zstd level, or not at all.
    #[serde(default, deserialize_with = "compression")]
    pub compression: Compression,
}

/// The table `[backup.s3]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// The URL of the service; AWS itself where absent.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    #[serde(default = "region")]
    pub region: String,
    /// The id of the access key.
    pub access_key_id: String,
    /// The file with the secret access key.
    pub secret_access_key_file: PathBuf,
}

fn memory_budget() -> ByteCount {
    MEMORY_BUDGET
}

fn region() -> String {
    REGION.into()
}

/// A size as text (`960M`), or a number of bytes.
fn size<'de, D: Deserializer<'de>>(from: D) -> Result<ByteCount, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Size {
        Number(u64),
        Text(String),
    }
    match Size::deserialize(from)? {
        Size::Number(bytes) => Ok(ByteCount(bytes)),
        Size::Text(text) => text.parse().map_err(|error: InvalidSize| serde::de::Error::custom(error)),
    }
}

/// A level as a number or as text, or `none`.
fn compression<'de, D: Deserializer<'de>>(from: D) -> Result<Compression, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Level(i64),
        Text(String),
    }
    let text = match Value::deserialize(from)? {
        Value::Level(level) => level.to_string(),
        Value::Text(text) => text,
    };
    text.parse().map_err(|error: ParseCompressionError| serde::de::Error::custom(error))
}

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The store cannot be used.
    #[error("backup.store")]
    Store(#[from] StoreSettingsError),
    /// Both kinds of secret are set.
    #[error("backup.key_file and backup.passphrase_file are both set; keep one")]
    TwoSecrets,
    /// A store in a folder needs no S3 settings; something else was meant.
    #[error("backup.s3 is set, but backup.store is not s3://bucket/prefix")]
    UnusedS3Settings,
    /// There is no key yet.
    #[error(
        "there is no key file {0}; create one with `head -c 64 /dev/urandom > {0} && chmod 600 {0}` and keep a copy \
         elsewhere: without it no backup can ever be read"
    )]
    NoKey(PathBuf),
    /// Others have access to a file with a secret.
    #[error("a file with a secret")]
    UntrustedSecretFile(#[from] FileTrustError),
}

/// Where the repository is and how it is opened. Contacts no store.
///
/// # Errors
/// When values contradict each other, or others have access to a file with a secret.
pub fn repository_config(settings: &Settings<Config>) -> Result<RepositoryConfig, ConfigError> {
    let (own, state) = (&settings.service, &settings.state_dir);
    let url: StoreUrl = match &own.store {
        Some(text) => text.parse()?,
        None => StoreUrl::Folder(state.join("store")),
    };
    let mut store = StoreSettings::new(url);
    store.s3 = match (&store.url, &own.s3) {
        (StoreUrl::S3 { .. }, Some(s3)) => Some(s3_settings(s3)?),
        (StoreUrl::S3 { .. }, None) => return Err(StoreSettingsError::S3SettingsMissing.into()),
        (StoreUrl::Folder(_), Some(_)) => return Err(ConfigError::UnusedS3Settings),
        (StoreUrl::Folder(_), None) => None,
    };
    let secret = match (&own.key_file, &own.passphrase_file) {
        (Some(_), Some(_)) => return Err(ConfigError::TwoSecrets),
        (None, Some(path)) => SecretFile::Passphrase(path.clone()),
        (Some(path), None) => SecretFile::Key(path.clone()),
        (None, None) => SecretFile::Key(state.join("keys/backup.key")),
    };
    check_secret_file(secret.path())?;
    let engine = EngineSettings {
        memory_bytes_max: usize::try_from(own.memory_budget.0).unwrap_or(usize::MAX)
            / (COPIES_MAX + READS_MAX + MAINTENANCE_MAX),
        cache: Some(state.join("backup/cache")),
        compression: own.compression,
        ..EngineSettings::default()
    };
    Ok(RepositoryConfig {
        store,
        secret,
        engine,
        creation: if own.create_repository {
            RepositoryCreation::Allowed
        } else {
            RepositoryCreation::Forbidden
        },
        kdf: KdfCost::default(),
        collect_settings: CollectSettings::default(),
        refresh_interval: REFRESH_INTERVAL,
        last_opened_file: state.join("backup/repository.json"),
    })
}

fn s3_settings(s3: &S3) -> Result<S3Settings, ConfigError> {
    check_secret_file(&s3.secret_access_key_file)?;
    Ok(S3Settings {
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        access_key_id: s3.access_key_id.clone(),
        secret_access_key_file: s3.secret_access_key_file.clone(),
    })
}

fn check_secret_file(path: &Path) -> Result<(), ConfigError> {
    if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Err(ConfigError::NoKey(path.into()));
    }
    Ok(refuse_if_others_have_access(path)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use contract::{HostName, Realm};

    use super::*;

    fn settings(state: &Path, own: &str) -> Settings<Config> {
        Settings {
            host: HostName::new("h1").expect("a valid name"),
            state_dir: state.into(),
            realm: Realm::default(),
            nats: chassis::NatsSettings {
                url: "nats://127.0.0.1:4222".into(),
                nkey_file: None,
                ca_file: None,
                people_file: None,
            },
            operations_kept: chassis::OperationsKept::default(),
            health_socket: None,
            service: toml::from_str(own).expect("valid TOML"),
        }
    }

    fn secret(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().expect("a parent folder")).expect("the folder is created");
        fs::write(path, [7; 64]).expect("the file is written");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the mode is set");
    }

    #[test]
    fn the_defaults_are_a_folder_and_a_key_in_the_state_folder_and_create_no_repository() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let missing = repository_config(&settings(state.path(), "")).expect_err("there is no key");
        assert!(missing.to_string().contains("head -c 64 /dev/urandom"), "{missing}");
        secret(&state.path().join("keys/backup.key"), 0o600);
        let config = repository_config(&settings(state.path(), "")).expect("the settings are valid");
        assert_eq!(config.store.url, StoreUrl::Folder(state.path().join("store")));
        assert_eq!(config.creation, RepositoryCreation::Forbidden);
    }

    #[test]
    fn a_secret_that_others_can_read_or_write_is_refused() {
        let state = tempfile::tempdir().expect("a temporary folder");
        let key = state.path().join("keys/backup.key");
        for mode in [0o640, 0o604, 0o620, 0o602] {
            secret(&key, mode);
            assert!(repository_config(&settings(state.path(), "")).is_err(), "{mode:o}");
        }
    }

    #[test]
    fn contradictions_are_refused_with_a_sentence() {
        let state = tempfile::tempdir().expect("a temporary folder");
        secret(&state.path().join("keys/backup.key"), 0o600);
        let refusal = |own: &str| {
            repository_config(&settings(state.path(), own)).expect_err("a contradiction").to_string()
        };
        assert!(refusal("key_file = \"/a\"\npassphrase_file = \"/b\"").contains("keep one"));
        assert!(
            refusal("[s3]\naccess_key_id = \"a\"\nsecret_access_key_file = \"/b\"").contains("backup.s3")
        );
        assert!(refusal("store = \"ftp://x\"").contains("backup.store"));
        assert!(refusal("store = \"s3://bucket\"").contains("backup.store"));
    }

    #[test]
    fn sizes_are_text_or_bytes() {
        let budget = |own: &str| toml::from_str::<Config>(own).map(|config| config.memory_budget);
        assert_eq!(budget("").expect("valid TOML"), MEMORY_BUDGET);
        assert_eq!(budget("memory_budget = \"1G\"").expect("valid TOML"), ByteCount::gib(1));
        assert_eq!(budget("memory_budget = 4096").expect("valid TOML"), ByteCount(4096));
        assert!(budget("memory_budget = \"much\"").is_err());
        assert!(budget("memory = \"1G\"").is_err());
    }

    #[test]
    fn a_compression_is_a_level_or_none() {
        let compression =
            |own: &str| toml::from_str::<Config>(own).map(|config| config.compression.to_string());
        for (own, is) in [
            ("", "1"),
            ("compression = 7", "7"),
            ("compression = \"7\"", "7"),
            ("compression = \"none\"", "none"),
        ] {
            assert_eq!(compression(own).expect("valid TOML"), is, "{own}");
        }
        for own in ["compression = 0", "compression = 20", "compression = \"fast\"", "compression = true"] {
            compression(own).expect_err(own);
        }
        let state = tempfile::tempdir().expect("a temporary folder");
        secret(&state.path().join("keys/backup.key"), 0o600);
        let config =
            repository_config(&settings(state.path(), "compression = 7")).expect("the settings are valid");
        assert_eq!(config.engine.compression.to_string(), "7");
    }
}
