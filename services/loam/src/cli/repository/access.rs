//! Where the repository is, who opens it, and how much of this machine its engine may use.

use std::ffi::OsStr;
use std::path::PathBuf;

use backup_repository::{
    EngineSettings, KdfCost, Repository, S3Settings, Secret, SecretError, Store, StoreSettings, StoreUrl,
    WriteOnly,
};
use clap::Args;
use contract::ByteCount;

use super::trouble;
use super::work::Work;
use crate::cli::exit::Trouble;

/// The store itself.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Repository")]
pub(super) struct StoreArgs {
    /// Where the repository is: file:///absolute/folder or s3://bucket/prefix
    #[arg(long, value_name = "URL")]
    store: StoreUrl,
    /// The S3 service, as in http://127.0.0.1:9000; AWS itself unless given
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// The region that S3 signatures name
    #[arg(long, value_name = "NAME", default_value = "us-east-1")]
    region: String,
    /// Who we are for S3
    #[arg(long, value_name = "ID", requires = "secret_access_key_file")]
    access_key_id: Option<String>,
    /// A file with the secret access key for S3, which nobody else can write
    #[arg(long, value_name = "FILE", requires = "access_key_id")]
    secret_access_key_file: Option<PathBuf>,
}

/// A second store, for `copy`.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The repository to copy to")]
pub(super) struct OtherStoreArgs {
    /// Where it is
    #[arg(long = "to", value_name = "URL")]
    to_store: StoreUrl,
    /// Its S3 service
    #[arg(long, value_name = "URL")]
    to_endpoint: Option<String>,
    /// Its region
    #[arg(long, value_name = "NAME", default_value = "us-east-1")]
    to_region: String,
    /// Who we are there
    #[arg(long, value_name = "ID", requires = "to_secret_access_key_file")]
    to_access_key_id: Option<String>,
    /// A file with the secret access key for it
    #[arg(long, value_name = "FILE", requires = "to_access_key_id")]
    to_secret_access_key_file: Option<PathBuf>,
}

impl From<OtherStoreArgs> for StoreArgs {
    fn from(other: OtherStoreArgs) -> StoreArgs {
        StoreArgs {
            store: other.to_store,
            endpoint: other.to_endpoint,
            region: other.to_region,
            access_key_id: other.to_access_key_id,
            secret_access_key_file: other.to_secret_access_key_file,
        }
    }
}

impl StoreArgs {
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

/// What proves that we may: exactly one of three files, each of which only its owner can write.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Repository")]
#[group(required = true, multiple = false)]
pub(super) struct SecretArgs {
    /// A file with the passphrase
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// A file of at least 32 random bytes
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// A file with a private key, as `keys identity` makes it
    #[arg(long, value_name = "FILE")]
    identity_file: Option<PathBuf>,
}

/// The same for a second repository.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "The repository to copy to")]
#[group(required = true, multiple = false)]
pub(super) struct OtherSecretArgs {
    /// A file with its passphrase
    #[arg(long, value_name = "FILE")]
    to_passphrase_file: Option<PathBuf>,
    /// Its key file
    #[arg(long, value_name = "FILE")]
    to_key_file: Option<PathBuf>,
    /// A file with a private key that opens it
    #[arg(long, value_name = "FILE")]
    to_identity_file: Option<PathBuf>,
}

impl SecretArgs {
    fn read(&self) -> Result<Secret, Trouble> {
        let SecretArgs { passphrase_file, key_file, identity_file } = self;
        let secret = secret_of(passphrase_file.as_ref(), key_file.as_ref(), identity_file.as_ref());
        secret.expect("the group is required").map_err(trouble::of)
    }
}

impl From<OtherSecretArgs> for SecretArgs {
    fn from(other: OtherSecretArgs) -> SecretArgs {
        SecretArgs {
            passphrase_file: other.to_passphrase_file,
            key_file: other.to_key_file,
            identity_file: other.to_identity_file,
        }
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
#[command(next_help_heading = "Repository")]
pub(super) struct EngineArgs {
    /// A folder that keeps what was learnt for the next time, or `none`; $XDG_CACHE_HOME/loam unless given. Without it
    /// the index is read anew each time, and exchanged keys are not noticed
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// The most memory that buffers take together, as in 512M
    #[arg(long, value_name = "SIZE", default_value = "256M")]
    memory: ByteCount,
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

impl Access {
    /// Opens the repository. Nothing is ever made by it.
    pub(super) async fn open(&self, work: &Work) -> Result<Repository, Trouble> {
        let secret = self.secret.read()?;
        let place = self.store.store.clone();
        let store = self.store.clone().settings().open().map_err(trouble::of)?;
        self.opened(&place, Repository::open(store, secret, self.engine.clone().settings()), work).await
    }

    /// Opens it for who wants to see what was backed up: a write-only key is refused before anything is begun.
    pub(super) async fn open_to_read(&self, work: &Work) -> Result<Repository, Trouble> {
        let repository = self.open(work).await?;
        if repository.can_read() { Ok(repository) } else { Err(trouble::of(WriteOnly)) }
    }

    /// Makes a repository.
    pub(super) async fn init(&self, work: &Work) -> Result<Repository, Trouble> {
        let secret = self.secret.read()?;
        let place = self.store.store.clone();
        let store: Store = self.store.clone().settings().open_for_init().map_err(trouble::of)?;
        let init = Repository::init(store, secret, KdfCost::default(), self.engine.clone().settings());
        self.opened(&place, init, work).await
    }

    /// The way to another repository, with the same share of this machine.
    pub(super) fn other(&self, store: OtherStoreArgs, secret: OtherSecretArgs) -> Access {
        Access { store: store.into(), secret: secret.into(), engine: self.engine.clone() }
    }

    async fn opened(
        &self,
        place: &StoreUrl,
        opening: impl Future<Output = Result<Repository, backup_repository::OpenError>>,
        work: &Work,
    ) -> Result<Repository, Trouble> {
        work.unless_told(opening, |error| trouble::while_doing(place, error)).await
    }
}
