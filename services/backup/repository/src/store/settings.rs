//! How a store is named and reached, as typed settings.

use std::path::PathBuf;
use std::time::Duration;

use object_store::local::LocalFileSystem;

use super::Store;
use super::s3::S3;
use crate::keys::secret::SecretError;

/// Where the objects lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// `file:///absolute/folder`
    Folder(PathBuf),
    /// `s3://bucket/prefix`; the prefix may be empty.
    S3 {
        /// The bucket, which must exist.
        bucket: String,
        /// The prefix of the repository's objects; may be empty.
        prefix: String,
    },
}

impl std::str::FromStr for StoreUrl {
    type Err = StoreSettingsError;

    fn from_str(url: &str) -> Result<StoreUrl, StoreSettingsError> {
        let refuse = |why| StoreSettingsError::Url { url: url.to_owned(), why };
        if let Some(path) = url.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(refuse("a folder is written file:///absolute/path"));
            }
            Ok(StoreUrl::Folder(PathBuf::from(path)))
        } else if let Some(rest) = url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(refuse("the bucket is missing: s3://bucket/prefix"));
            }
            Ok(StoreUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
        } else {
            Err(refuse("use file:///path or s3://bucket/prefix"))
        }
    }
}

impl std::fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            StoreUrl::Folder(path) => write!(f, "file://{}", path.display()),
            StoreUrl::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// How to reach an S3 service.
#[derive(Clone, Debug)]
pub struct S3Settings {
    /// The service, e.g. `http://127.0.0.1:8333`; `None` is AWS itself.
    pub endpoint: Option<String>,
    /// The region that signatures name.
    pub region: String,
    /// The id of the access key.
    pub access_key_id: String,
    /// The file that holds the secret access key. Never passed by argument or environment.
    pub secret_access_key_file: PathBuf,
}

/// Everything needed to reach a store, with all waits bounded.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// A folder or a prefix of an S3 bucket.
    pub url: StoreUrl,
    /// Endpoint and credentials, for `s3://`.
    pub s3: Option<S3Settings>,
    /// Time to connect.
    pub connect_timeout: Duration,
    /// Time for one attempt, upload of a pack included.
    pub request_timeout: Duration,
    /// Attempts after the first.
    pub retries_max: usize,
    /// No new attempt is begun after this time.
    pub retry_timeout: Duration,
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreSettingsError {
    /// Not a URL of a store.
    #[error("`{url}` does not name a store: {why}")]
    Url {
        /// As given.
        url: String,
        /// What was expected.
        why: &'static str,
    },
    /// An S3 store without [`S3Settings`].
    #[error("an s3:// store needs its access key and secret file")]
    S3SettingsMissing,
    /// The folder is not there, and only `init` makes one.
    #[error("there is no folder {path} (a repository is made by init)")]
    FolderNotFound {
        /// The folder.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
    /// The folder could not be made.
    #[error("could not make the folder {path}")]
    FolderNotMade {
        /// The folder.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
    /// The secret file could not be used.
    #[error("could not read the S3 secret")]
    Secret(#[from] SecretError),
    /// The client refused the settings.
    #[error("could not set up the store's client")]
    Client(#[source] object_store::Error),
}

impl StoreSettings {
    /// Settings with the usual waits: 5 s to connect, 60 s per attempt, five retries within two minutes.
    pub fn new(url: StoreUrl) -> StoreSettings {
        StoreSettings {
            url,
            s3: None,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(60),
            retries_max: 5,
            retry_timeout: Duration::from_secs(120),
        }
    }

    /// Opens the store, creating nothing. Whether it holds a repository: `Repository::open`.
    ///
    /// # Errors
    /// When the settings are not valid, the folder is missing or the secret cannot be read. The S3 service is
    /// not contacted yet.
    pub fn open(&self) -> Result<Store, StoreSettingsError> {
        let store = match &self.url {
            StoreUrl::Folder(path) => {
                if let Err(source) = std::fs::read_dir(path) {
                    return Err(StoreSettingsError::FolderNotFound { path: path.clone(), source });
                }
                let folder = LocalFileSystem::new_with_prefix(path)
                    .map_err(StoreSettingsError::Client)?
                    .with_fsync(true)
                    .with_automatic_cleanup(true);
                Store::in_folder(folder, path.clone())
            }
            StoreUrl::S3 { bucket, prefix } => Store::on_s3(S3::open(self, bucket, prefix)?),
        };
        Ok(store.with_deadline(self.call_deadline()))
    }

    /// Opens the store for `Repository::init`: a missing folder is made (readable by its owner only).
    ///
    /// # Errors
    /// As [`StoreSettings::open`], and when the folder cannot be made.
    pub fn open_for_init(&self) -> Result<Store, StoreSettingsError> {
        if let StoreUrl::Folder(path) = &self.url {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|source| StoreSettingsError::FolderNotMade { path: path.clone(), source })?;
        }
        self.open()
    }

    /// The longest that one call can take: the last attempt may begin just before the retries end.
    fn call_deadline(&self) -> Duration {
        self.retry_timeout + self.request_timeout + self.connect_timeout
    }
}
