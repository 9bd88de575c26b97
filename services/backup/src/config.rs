//! The settings of the backup service, read once.
//!
//! ```toml
//! [backup]
//! store = "s3://bucket/prefix"        # or file:///folder; without it the folder "store" of the state folder
//! key_file = "/etc/loam/store.key"    # or passphrase_file; without either "keys/backup.key" of the state folder
//! create_repository = false           # true: make a repository where nothing was before
//! memory_budget = "768M"              # for all copies, restores and verifications together
//! [backup.s3]                         # only for s3://
//! endpoint = "http://127.0.0.1:8333"  # without it AWS itself
//! region = "us-east-1"
//! access_key_id = "loam"
//! secret_access_key_file = "/etc/loam/s3.secret"
//! ```
//!
//! A file that holds a secret must be ours alone: nobody else may write it or read it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use backup_repository::{EngineSettings, KdfCost, S3Settings, StoreSettings, StoreSettingsError, StoreUrl};
use chassis::{FileError, Settings, refuse_if_others_can_write};
use contract::ByteCount;
use contract::amount::InvalidSize;
use serde::{Deserialize, Deserializer};

use crate::actors::{COPIES_MAX, READS_MAX};
use crate::adapters::shelf::{Making, SecretFile, Shelf};

/// Enough for four pieces of work at once on a machine of 2 GiB.
const MEMORY_BUDGET: ByteCount = ByteCount::mib(768);
/// Permission bits that let others see a file.
const READABLE_BY_OTHERS: u32 = 0o077;
const REGION: &str = "us-east-1";

/// The part `[backup]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the backups lie.
    #[serde(default)]
    pub store: Option<String>,
    /// How to reach an S3 store.
    #[serde(default)]
    pub s3: Option<S3>,
    /// Random bytes that open the repository.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// A passphrase that opens the repository.
    #[serde(default)]
    pub passphrase_file: Option<PathBuf>,
    /// Whether to make a repository where nothing was before.
    #[serde(default)]
    pub create_repository: bool,
    /// Memory for the buffers of all heavy work together.
    #[serde(default = "memory_budget", deserialize_with = "size")]
    pub memory_budget: ByteCount,
}

/// The part `[backup.s3]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    /// The service; AWS itself where absent.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The region that signatures name.
    #[serde(default = "region")]
    pub region: String,
    /// Who we are.
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

/// A size as people write it, or a plain number.
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

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The store is not one.
    #[error("backup.store")]
    Store(#[from] StoreSettingsError),
    /// Both kinds of secret are named.
    #[error("backup.key_file and backup.passphrase_file are both set; keep one")]
    TwoSecrets,
    /// A folder store needs no S3 settings; somebody meant something else.
    #[error("backup.s3 is set, but backup.store is not s3://bucket/prefix")]
    S3WithoutNeed,
    /// There is no key yet.
    #[error(
        "there is no key file {0}; make one with `head -c 64 /dev/urandom > {0} && chmod 600 {0}` and keep a copy \
         elsewhere: without it no backup can ever be read"
    )]
    NoKey(PathBuf),
    /// A secret file is not to be trusted.
    #[error("a file with a secret")]
    Untrusted(#[from] FileError),
    /// A secret file is no secret.
    #[error("{path} can be read by others (mode {mode:o}); run `chmod go= {path}`")]
    ReadableByOthers {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// Turns settings into a shelf: where the repository is and how it is opened. Contacts no store.
///
/// # Errors
/// When a value makes no sense or a secret file is open to others.
pub fn shelf(settings: &Settings<Config>) -> Result<Shelf, ConfigError> {
    let (own, state) = (&settings.own, &settings.state_dir);
    let url: StoreUrl = match &own.store {
        Some(text) => text.parse()?,
        None => StoreUrl::Folder(state.join("store")),
    };
    let mut store = StoreSettings::new(url);
    store.s3 = match (&store.url, &own.s3) {
        (StoreUrl::S3 { .. }, Some(s3)) => Some(s3_settings(s3)?),
        (StoreUrl::S3 { .. }, None) => return Err(StoreSettingsError::S3SettingsMissing.into()),
        (StoreUrl::Folder(_), Some(_)) => return Err(ConfigError::S3WithoutNeed),
        (StoreUrl::Folder(_), None) => None,
    };
    let secret = match (&own.key_file, &own.passphrase_file) {
        (Some(_), Some(_)) => return Err(ConfigError::TwoSecrets),
        (None, Some(path)) => SecretFile::Passphrase(path.clone()),
        (Some(path), None) => SecretFile::Key(path.clone()),
        (None, None) => SecretFile::Key(state.join("keys/backup.key")),
    };
    refuse_if_not_ours_alone(secret.path())?;
    let engine = EngineSettings {
        memory_bytes_max: usize::try_from(own.memory_budget.0).unwrap_or(usize::MAX)
            / (COPIES_MAX + READS_MAX),
        cache: Some(state.join("backup/cache")),
        ..EngineSettings::default()
    };
    Ok(Shelf {
        store,
        secret,
        engine,
        making: if own.create_repository { Making::Allowed } else { Making::Forbidden },
        kdf: KdfCost::default(),
        note: state.join("backup/repository.json"),
    })
}

fn s3_settings(s3: &S3) -> Result<S3Settings, ConfigError> {
    refuse_if_not_ours_alone(&s3.secret_access_key_file)?;
    Ok(S3Settings {
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        access_key_id: s3.access_key_id.clone(),
        secret_access_key_file: s3.secret_access_key_file.clone(),
    })
}

fn refuse_if_not_ours_alone(path: &Path) -> Result<(), ConfigError> {
    if path.symlink_metadata().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Err(ConfigError::NoKey(path.into()));
    }
    refuse_if_others_can_write(path)?;
    let looked =
        std::fs::metadata(path).map_err(|source| FileError::Unreadable { path: path.into(), source })?;
    let mode = looked.permissions().mode() & 0o7777;
    if mode & READABLE_BY_OTHERS != 0 {
        return Err(ConfigError::ReadableByOthers { path: path.into(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use contract::{HostName, Realm};

    use super::*;

    fn settings(state: &Path, own: &str) -> Settings<Config> {
        Settings {
            host: HostName::new("h1").expect("a name"),
            state_dir: state.into(),
            realm: Realm::default(),
            nats: chassis::NatsSettings { url: "nats://127.0.0.1:4222".into(), nkey_file: None },
            own: toml::from_str(own).expect("readable"),
        }
    }

    fn secret(path: &Path, mode: u32) {
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, [7; 64]).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    }

    #[test]
    fn the_defaults_are_a_folder_and_a_key_in_the_state_folder_and_make_no_repository() {
        let state = tempfile::tempdir().expect("a folder");
        let missing = shelf(&settings(state.path(), "")).expect_err("no key");
        assert!(missing.to_string().contains("head -c 64 /dev/urandom"), "{missing}");
        secret(&state.path().join("keys/backup.key"), 0o600);
        let shelf = shelf(&settings(state.path(), "")).expect("usable");
        assert_eq!(shelf.store.url, StoreUrl::Folder(state.path().join("store")));
        assert_eq!(shelf.making, Making::Forbidden);
    }

    #[test]
    fn a_secret_that_others_can_read_or_write_is_refused() {
        let state = tempfile::tempdir().expect("a folder");
        let key = state.path().join("keys/backup.key");
        for mode in [0o640, 0o604, 0o620, 0o602] {
            secret(&key, mode);
            assert!(shelf(&settings(state.path(), "")).is_err(), "{mode:o}");
        }
    }

    #[test]
    fn contradictions_are_refused_in_words() {
        let state = tempfile::tempdir().expect("a folder");
        secret(&state.path().join("keys/backup.key"), 0o600);
        let told = |own: &str| shelf(&settings(state.path(), own)).expect_err("refused").to_string();
        assert!(told("key_file = \"/a\"\npassphrase_file = \"/b\"").contains("keep one"));
        assert!(told("[s3]\naccess_key_id = \"a\"\nsecret_access_key_file = \"/b\"").contains("backup.s3"));
        assert!(told("store = \"ftp://x\"").contains("backup.store"));
        assert!(told("store = \"s3://bucket\"").contains("backup.store"));
    }

    #[test]
    fn sizes_are_written_as_people_write_them() {
        let budget = |own: &str| toml::from_str::<Config>(own).map(|config| config.memory_budget);
        assert_eq!(budget("").expect("read"), MEMORY_BUDGET);
        assert_eq!(budget("memory_budget = \"1G\"").expect("read"), ByteCount::gib(1));
        assert_eq!(budget("memory_budget = 4096").expect("read"), ByteCount(4096));
        assert!(budget("memory_budget = \"much\"").is_err());
        assert!(budget("memory = \"1G\"").is_err());
    }
}
