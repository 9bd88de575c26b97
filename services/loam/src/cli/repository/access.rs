//! Where the repository is, which secret opens it, and how much of this machine its engine may use.

use std::ffi::OsStr;
use std::io::ErrorKind::NotFound;
use std::path::PathBuf;

use backup_repository::{
    Chunker, Compression, EngineSettings, KdfCost, ObjectLock, OpenError, Repository, S3Settings, Secret,
    SecretError, Store, StoreSettings, StoreSettingsError, StoreUrl, WriteOnly,
};
use clap::Args;
use contract::ByteCount;

use super::work::CommandContext;
use super::{OPTIONS, errors};
use crate::cli::exit::CliError;

/// The store itself.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = OPTIONS)]
pub(super) struct StoreArgs {
    /// Location of the repository: file:///absolute/directory or s3://bucket/prefix
    #[arg(long, value_name = "URL")]
    store: StoreUrl,
    /// URL of the S3 service, such as http://127.0.0.1:9000 (default: AWS)
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// S3 region
    #[arg(long, value_name = "NAME", default_value = "us-east-1")]
    region: String,
    /// S3 access key id
    #[arg(long, value_name = "ID", requires = "secret_access_key_file")]
    access_key_id: Option<String>,
    /// File with the S3 secret access key, which only its owner can write
    #[arg(long, value_name = "FILE", requires = "access_key_id")]
    secret_access_key_file: Option<PathBuf>,
}

/// The heading of the options of a second repository.
pub(super) const SECOND: &str = "Second repository";

/// What reaches and opens a second repository. `to_store`, which a command has beside these, says where it is.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = SECOND)]
pub(super) struct SecondRepositoryArgs {
    /// URL of the S3 service of the second repository (default: AWS)
    #[arg(long, value_name = "URL", requires = "to_store")]
    to_endpoint: Option<String>,
    /// S3 region of the second repository
    #[arg(long, value_name = "NAME", default_value = "us-east-1")]
    to_region: String,
    /// S3 access key id for the second repository
    #[arg(long, value_name = "ID", requires = "to_secret_access_key_file")]
    to_access_key_id: Option<String>,
    /// File with the S3 secret access key for the second repository
    #[arg(long, value_name = "FILE", requires = "to_access_key_id")]
    to_secret_access_key_file: Option<PathBuf>,
    /// File with the passphrase of the second repository
    #[arg(long, value_name = "FILE", requires = "to_store", conflicts_with_all = ["to_key_file", "to_identity_file"])]
    to_passphrase_file: Option<PathBuf>,
    /// File with the key of the second repository, at least 32 random bytes
    #[arg(long, value_name = "FILE", requires = "to_store", conflicts_with = "to_identity_file")]
    to_key_file: Option<PathBuf>,
    /// File with a private key that opens the second repository
    #[arg(long, value_name = "FILE", requires = "to_store")]
    to_identity_file: Option<PathBuf>,
}

impl StoreArgs {
    fn open(self) -> Result<Store, CliError> {
        self.settings().open().map_err(errors::of)
    }

    fn settings(self) -> StoreSettings {
        let mut settings = StoreSettings::new(self.store);
        settings.s3 = self.access_key_id.zip(self.secret_access_key_file).map(
            |(access_key_id, secret_access_key_file)| S3Settings {
                endpoint: self.endpoint,
                region: self.region,
                access_key_id,
                secret_access_key_file,
            },
        );
        settings
    }
}

/// The secret: exactly one of three files, each of which only its owner can write.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = OPTIONS)]
#[group(required = true, multiple = false)]
pub(super) struct SecretArgs {
    /// File with the passphrase of the repository
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// File with the key of the repository, at least 32 random bytes
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// File with a private key that opens the repository, as `keys generate-identity` makes it
    #[arg(long, value_name = "FILE")]
    identity_file: Option<PathBuf>,
}

impl SecretArgs {
    fn is_none(&self) -> bool {
        self.passphrase_file.is_none() && self.key_file.is_none() && self.identity_file.is_none()
    }

    fn read(&self) -> Result<Secret, CliError> {
        let SecretArgs { passphrase_file, key_file, identity_file } = self;
        let secret = secret_of(passphrase_file.as_ref(), key_file.as_ref(), identity_file.as_ref());
        secret.expect("the group is required").map_err(errors::of)
    }
}

/// The secret in whichever file is given.
pub(super) fn secret_of(
    passphrase_file: Option<&PathBuf>,
    key_file: Option<&PathBuf>,
    identity_file: Option<&PathBuf>,
) -> Option<Result<Secret, SecretError>> {
    let passphrase = passphrase_file.map(|path| Secret::passphrase_file(path));
    let key = key_file.map(|path| Secret::key_file(path));
    passphrase.or(key).or_else(|| identity_file.map(|path| Secret::identity_file(path)))
}

/// How much of this machine may be used.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = OPTIONS)]
pub(super) struct EngineArgs {
    /// Cache directory, or `none` (default: $XDG_CACHE_HOME/loam)
    ///
    /// Without a cache the index is read each time, and replaced keys are not noticed.
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Maximum memory of all buffers together, such as 512M or 1G (powers of 1024)
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    memory: ByteCount,
    /// Set by the commands that store something.
    #[arg(skip)]
    compression: Compression,
}

impl EngineArgs {
    fn settings(self) -> EngineSettings {
        EngineSettings {
            memory_bytes_max: usize::try_from(self.memory.0).unwrap_or(usize::MAX),
            cache: match self.cache {
                Some(none) if none == OsStr::new("none") => None,
                Some(folder) => Some(folder),
                None => cache_default(),
            },
            compression: self.compression,
            ..EngineSettings::default()
        }
    }
}

/// By the XDG base directory specification: a relative path in the variable counts as none.
fn cache_default() -> Option<PathBuf> {
    let folder = |variable| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")))?;
    Some(caches.join("loam"))
}

/// For commands that change a repository.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct DryRun {
    /// Show what would be done, and change nothing
    #[arg(short = 'n', long)]
    pub(super) dry_run: bool,
}

/// Everything that opens a repository.
#[derive(Clone, Debug, Args)]
pub(super) struct Access {
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    secret: SecretArgs,
    #[command(flatten)]
    engine: EngineArgs,
}

/// How new data is stored.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct CompressionArgs {
    /// Compression of new data: `none`, or a zstd level from 1 (fast) to 19 (small)
    #[arg(long, value_name = "LEVEL|none", default_value_t)]
    compression: Compression,
}

impl Access {
    /// The same, with this compression of new data.
    pub(super) fn compressing(mut self, how: CompressionArgs) -> Access {
        self.engine.compression = how.compression;
        self
    }

    /// The store alone, for what needs no key.
    pub(super) fn open_store(&self) -> Result<Store, CliError> {
        self.store.clone().open()
    }

    /// Opens the repository; never makes one.
    pub(super) async fn open(&self, work: &CommandContext) -> Result<Repository, CliError> {
        let secret = self.secret.read()?;
        let place = self.store.store.clone();
        let store = self.store.clone().settings().open().map_err(errors::of)?;
        self.opened(&place, Repository::open(store, secret, self.engine.clone().settings()), work).await
    }

    /// Opens it to change something, or to show what would change: then the cache is left alone as well.
    pub(super) async fn open_to_change(
        &self,
        dry_run: bool,
        work: &CommandContext,
    ) -> Result<Repository, CliError> {
        if !dry_run {
            return self.open(work).await;
        }
        let secret = self.secret.read()?;
        let store = self.store.clone().open()?.dry_run();
        let engine = EngineSettings { cache: None, ..self.engine.clone().settings() };
        self.opened(&self.store.store, Repository::open(store, secret, engine), work).await
    }

    /// Opens it to read backups: a write-only key is refused before anything is done.
    pub(super) async fn open_to_read(&self, work: &CommandContext) -> Result<Repository, CliError> {
        let repository = self.open(work).await?;
        if repository.can_read() { Ok(repository) } else { Err(errors::of(WriteOnly)) }
    }

    /// Makes a repository.
    pub(super) async fn init(
        &self,
        lock: Option<ObjectLock>,
        chunker: Chunker,
        work: &CommandContext,
    ) -> Result<Repository, CliError> {
        let secret = self.secret.read()?;
        let place = self.store.store.clone();
        let store = self.store.clone().settings().open_for_init().map_err(errors::of)?.with_object_lock(lock);
        let settings = self.engine.clone().settings();
        let init = Repository::init_with(store, secret, KdfCost::default(), settings, chunker);
        self.opened(&place, init, work).await
    }

    /// Whether a repository could be made.
    pub(super) async fn could_init(&self, work: &CommandContext) -> Result<(), CliError> {
        let secret = self.secret.read()?;
        let store = match self.store.clone().settings().open() {
            // Init makes the folder.
            Err(StoreSettingsError::FolderNotFound { source, .. }) if source.kind() == NotFound => {
                return Ok(());
            }
            store => store.map_err(errors::of)?,
        };
        let settings = EngineSettings { cache: None, ..self.engine.clone().settings() };
        let found = Repository::open(store, secret, settings);
        match work.unless_cancelled(async { Ok::<_, CliError>(found.await) }, |never| never).await? {
            Err(OpenError::NoRepository) => Ok(()),
            Err(error @ (OpenError::NotARepository | OpenError::Store(_))) => {
                Err(errors::while_doing(&self.store.store, error))
            }
            _ => Err(errors::while_doing(&self.store.store, OpenError::RepositoryExists)),
        }
    }

    /// Access to a second repository, with the same cache and memory.
    pub(super) fn second(&self, store: StoreUrl, second: SecondRepositoryArgs) -> Result<Access, CliError> {
        let secret = SecretArgs {
            passphrase_file: second.to_passphrase_file,
            key_file: second.to_key_file,
            identity_file: second.to_identity_file,
        };
        if secret.is_none() {
            return Err(errors::usage(
                "--to needs a secret that opens that repository, such as --to-passphrase-file",
            ));
        }
        let store = StoreArgs {
            store,
            endpoint: second.to_endpoint,
            region: second.to_region,
            access_key_id: second.to_access_key_id,
            secret_access_key_file: second.to_secret_access_key_file,
        };
        Ok(Access { store, secret, engine: self.engine.clone() })
    }

    /// Its location, for people.
    pub(super) fn place(&self) -> String {
        self.store.store.to_string()
    }

    async fn opened(
        &self,
        place: &StoreUrl,
        opening: impl Future<Output = Result<Repository, OpenError>>,
        work: &CommandContext,
    ) -> Result<Repository, CliError> {
        // The future is large, and part of every command.
        let opening = Box::pin(opening);
        work.unless_cancelled(opening, |error| errors::while_doing(place, error)).await
    }
}
