//! The repository: where it is and how it is opened.
//!
//! Promises: a repository is created only when the settings ask for it, and never where one was opened before: an
//! unmounted disk looks like an empty folder, and a second repository there would hide all backups. Which one was
//! opened last is noted in a small file of the state folder.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_repository::{
    CollectSettings, EngineSettings, KdfCost, OpenError, Repository, Secret, SecretError, Store,
    StoreSettings, StoreSettingsError,
};
use serde::{Deserialize, Serialize};

/// The file with the secret that opens the repository. Read at each opening, so that it is not kept in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretFile {
    /// At least 32 random bytes.
    Key(PathBuf),
    /// A passphrase in one line.
    Passphrase(PathBuf),
}

impl SecretFile {
    /// The path of the file.
    pub fn path(&self) -> &Path {
        match self {
            SecretFile::Key(path) | SecretFile::Passphrase(path) => path,
        }
    }

    fn read(&self) -> Result<Secret, SecretError> {
        match self {
            SecretFile::Key(path) => Secret::key_file(path),
            SecretFile::Passphrase(path) => Secret::passphrase_file(path),
        }
    }
}

/// Whether a repository may be created where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RepositoryCreation {
    /// Create one in an empty place.
    Allowed,
    /// Never.
    Forbidden,
}

/// Everything needed to open the repository, again and again, and to maintain it.
#[derive(Clone, Debug)]
pub struct RepositoryConfig {
    /// The store.
    pub store: StoreSettings,
    /// The secret.
    pub secret: SecretFile,
    /// The engine's bounds.
    pub engine: EngineSettings,
    /// Whether to create a repository.
    pub creation: RepositoryCreation,
    /// What each guess of the secret of a new repository costs.
    pub kdf: KdfCost,
    /// When packs and leases count as abandoned, and how much a collection rewrites.
    pub collect_settings: CollectSettings,
    /// The pause between two checks whether the repository is there and which backups it holds.
    pub refresh_interval: Duration,
    /// Where the repository opened last is noted.
    pub last_opened_file: PathBuf,
}

/// Why the repository is not open.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The store's settings cannot be used, or its folder is not there.
    #[error("opening the store")]
    Store(#[from] StoreSettingsError),
    /// The secret cannot be read.
    #[error("reading the repository's secret")]
    Secret(#[from] SecretError),
    /// The store answers, and the repository does not open.
    #[error("opening the repository at {url}")]
    Open {
        /// The URL of the store.
        url: String,
        /// Why not.
        #[source]
        source: Box<OpenError>,
    },
    /// There is none, and none is to be created.
    #[error("there is no repository at {url}; to create one, set backup.create_repository = true")]
    None {
        /// The URL of the store.
        url: String,
    },
    /// There was one, and it is gone.
    #[error(
        "the repository {id} is not at {url} any more; no other is created in its place (is the disk mounted?)"
    )]
    Gone {
        /// The URL of the store.
        url: String,
        /// The repository that was there.
        id: String,
    },
    /// The note cannot be read or written.
    #[error("noting the repository in {path}")]
    LastOpenedFile {
        /// The note.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Which repository was opened last.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LastOpenedRepository {
    url: String,
    repository: String,
}

impl RepositoryConfig {
    /// Opens the repository, or creates it where the settings ask for it and nothing was there before.
    ///
    /// # Errors
    /// When the store or the secret fails, or there is no repository.
    pub async fn open(&self) -> Result<Repository, RepositoryError> {
        let url = self.store.url.to_string();
        let config = self.clone();
        let (known, store, secret) = blocking(move || config.reach()).await?;
        let known_here = known.filter(|note| note.url == url);
        let opened = Repository::open(store.clone(), secret, self.engine.clone()).await;
        let repository = match (opened, known_here) {
            (Err(OpenError::NoRepository), Some(LastOpenedRepository { repository: id, .. })) => {
                return Err(RepositoryError::Gone { url, id });
            }
            (Err(OpenError::NoRepository), None) if self.creation == RepositoryCreation::Allowed => {
                let file = self.secret.clone();
                let secret = blocking(move || Ok(file.read()?)).await?;
                let created = Repository::init(store, secret, self.kdf, self.engine.clone())
                    .await
                    .map_err(|source| RepositoryError::Open { url: url.clone(), source: source.into() })?;
                tracing::info!(url, repository = %created.id(), "a repository was created");
                created
            }
            (Err(OpenError::NoRepository), None) => return Err(RepositoryError::None { url }),
            (Err(source), _) => {
                return Err(RepositoryError::Open { url, source: source.into() });
            }
            (Ok(repository), _) => repository,
        };
        let note = LastOpenedRepository { url, repository: repository.id().to_string() };
        let path = self.last_opened_file.clone();
        blocking(move || write_note(&path, &note)).await?;
        Ok(repository)
    }

    fn reach(&self) -> Result<(Option<LastOpenedRepository>, Store, Secret), RepositoryError> {
        let known = read_note(&self.last_opened_file)?;
        let was_here = known.as_ref().is_some_and(|note| note.url == self.store.url.to_string());
        let store = match self.creation {
            RepositoryCreation::Allowed if !was_here => self.store.open_for_init()?,
            _ => self.store.open()?,
        };
        Ok((known, store, self.secret.read()?))
    }
}

/// Runs file work off the async threads: a folder may be on a disk that hangs.
async fn blocking<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, RepositoryError> + Send + 'static,
) -> Result<T, RepositoryError> {
    tokio::task::spawn_blocking(job).await.expect("file work does not panic")
}

fn read_note(path: &Path) -> Result<Option<LastOpenedRepository>, RepositoryError> {
    let failed = |source| RepositoryError::LastOpenedFile { path: path.into(), source };
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Written beside and renamed, so that a crash leaves the old note or the new one.
fn write_note(path: &Path, note: &LastOpenedRepository) -> Result<(), RepositoryError> {
    let failed = |source| RepositoryError::LastOpenedFile { path: path.into(), source };
    if read_note(path)?.as_ref() == Some(note) {
        return Ok(());
    }
    let beside = path.with_extension("new");
    let write = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&serde_json::to_vec(note)?)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    write().map_err(failed)
}
