//! The repository: made once, opened with a secret.

use std::sync::{Arc, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::task::spawn_blocking;
use tracing::instrument;

use crate::chunker::{Chunker, StreamChunking};
use crate::format::config::{Claimed, Config};
use crate::format::{Damage, RepositoryId};
use crate::index::{self, Cache, Index, IndexError};
use crate::keys::{KdfCost, Keys, Roster, RosterError, Secret, WriteOnly};
use crate::pin::PinError;
use crate::rosters::{self, read_roster};
use crate::settings::EngineSettings;
use crate::store::{Created, Store, StoreError, names};

/// An open repository. Cheap to clone; all clones share keys and index.
#[derive(Clone)]
pub struct Repository {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) store: Store,
    keys: ArcSwap<Keys>,
    pub(crate) config: Config,
    pub(crate) settings: EngineSettings,
    pub(crate) cache: Cache,
    /// Read by every worker for every chunk, written when a pack was stored.
    pub(crate) index: RwLock<Index>,
    /// Two refreshes at once would read the same shards twice.
    refreshing: tokio::sync::Mutex<()>,
}

impl Shared {
    /// The keys of this moment; a new epoch may come at any time.
    pub(crate) fn keys(&self) -> Arc<Keys> {
        self.keys.load_full()
    }

    /// From now on work uses these keys.
    pub(crate) fn use_keys(&self, keys: Keys) {
        self.keys.store(Arc::new(keys));
    }

    /// The same repository seen through another index.
    pub(crate) fn seen_through(&self, index: Index) -> Arc<Shared> {
        Arc::new(Shared {
            store: self.store.clone(),
            keys: ArcSwap::new(self.keys()),
            config: self.config.clone(),
            settings: self.settings.clone(),
            cache: self.cache.clone(),
            index: RwLock::new(index),
            refreshing: tokio::sync::Mutex::new(()),
        })
    }
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({})", self.id())
    }
}

/// A repository could not be made or opened. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no repository; init makes one.
    #[error("there is no repository here (make one with init)")]
    NoRepository,
    /// The place holds something else.
    #[error("this place is not empty and is not a repository")]
    Foreign,
    /// Init was asked where a repository is already.
    #[error("there is a repository here already")]
    AlreadyThere,
    /// No key slot opens with this secret.
    #[error("the passphrase or key file does not open this repository")]
    WrongSecret,
    /// The slot that opened the repository is not in its roster any more.
    #[error("the key that this repository was opened with has been removed")]
    KeyRemoved,
    /// The store cannot do what a repository needs.
    #[error(
        "this store cannot create objects only if they are absent, or does not list them: no backup would be safe"
    )]
    Unfit,
    /// A repository with locked objects was asked for where none can be locked.
    #[error("objects cannot be locked here: it takes an S3 bucket that was made with Object Lock")]
    CannotLock,
    /// Written by newer software, or damaged.
    #[error("could not read {name}")]
    Damaged {
        /// The object.
        name: String,
        /// What is wrong with it.
        #[source]
        source: Damage,
    },
    /// The key derivation cannot be computed here.
    #[error("could not derive a key from the secret: {0}")]
    Kdf(argon2::Error),
    /// The store shows other keys than this host has seen.
    #[error("the store is not to be believed")]
    Pin(#[from] PinError),
    /// The cache folder cannot be used.
    #[error("could not use the cache folder")]
    Cache(#[source] IndexError),
    /// This slot may not.
    #[error(transparent)]
    WriteOnly(#[from] WriteOnly),
    /// The store failed.
    #[error("could not reach the repository")]
    Store(#[from] StoreError),
}

impl Repository {
    /// Makes a repository in an empty place and opens it. The last of its writes is a create-if-absent, so of two
    /// that try at once one succeeds, and an init that died half way can be repeated.
    ///
    /// # Errors
    /// When there is a repository or anything else already, or the store fails or cannot do what is needed.
    pub async fn init(
        store: Store,
        secret: Secret,
        cost: KdfCost,
        settings: EngineSettings,
    ) -> Result<Repository, OpenError> {
        Repository::init_with(store, secret, cost, settings, Chunker::default()).await
    }

    /// The same, with disks cut by another chunker than the default. It cannot be changed later.
    ///
    /// # Errors
    /// As [`Repository::init`].
    #[instrument(name = "repository.init", skip_all)]
    pub async fn init_with(
        store: Store,
        secret: Secret,
        cost: KdfCost,
        settings: EngineSettings,
        chunker: Chunker,
    ) -> Result<Repository, OpenError> {
        match store.get(&names::config()).await {
            Ok(object) => {
                return Err(match Config::decode(&object) {
                    Err(Damage::Foreign { .. }) => OpenError::Foreign,
                    _ => OpenError::AlreadyThere,
                });
            }
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let left_by_a_dead_init = store.list(&names::folder(names::KEYS)).await?.len()
            + store.list(&names::folder(names::PROBE)).await?.len();
        if left_by_a_dead_init == 0 && !store.is_empty().await? {
            return Err(OpenError::Foreign);
        }
        let capabilities = store.try_out().await?;
        if !capabilities.suffice() {
            return Err(OpenError::Unfit);
        }
        if store.object_lock().is_some() && !capabilities.object_lock {
            return Err(OpenError::CannotLock);
        }
        let repository = RepositoryId::generate();
        let now = unix_ms_now();
        let made = spawn_blocking(move || Roster::first(repository, "first".into(), secret, cost, now));
        let (roster, keys) = made
            .await
            .expect("making keys does not panic")
            .map_err(|error| not_opened(error, names::roster(repository, 1).to_string()))?;
        let roster_name = names::roster(repository, 1);
        store.create_kept(&roster_name, Bytes::from(roster)).await?;
        let config = Config {
            repository,
            created_unix_ms: now,
            chunking: chunker.into(),
            streams: StreamChunking::default(),
            store: capabilities,
            object_lock: store.object_lock(),
        };
        let object = config.encode(&keys).map_err(damaged_config)?;
        match store.create_kept(&names::config(), Bytes::from(object)).await? {
            Created::New => Repository::assemble(store, keys, config, settings).await,
            Created::AlreadyThere => {
                // Another init was faster.
                store.delete(&roster_name).await?;
                Err(OpenError::AlreadyThere)
            }
        }
    }

    /// Opens a repository. Writes nothing to the store; the index is loaded by the first work that needs it.
    ///
    /// # Errors
    /// [`OpenError::NoRepository`] and [`OpenError::Foreign`] where there is none, [`OpenError::WrongSecret`],
    /// [`OpenError::Damaged`] with [`Damage::Newer`] for a newer format, [`OpenError::Pin`] when the store shows other
    /// keys than before, or when the store fails.
    #[instrument(name = "repository.open", skip_all)]
    pub async fn open(
        store: Store,
        secret: Secret,
        settings: EngineSettings,
    ) -> Result<Repository, OpenError> {
        let claimed = read_config(&store).await?;
        let repository = claimed.config.repository;
        let (name, roster) = read_roster(&store, repository, 0).await?.ok_or_else(|| OpenError::Damaged {
            name: names::rosters(repository).to_string(),
            source: Damage::Missing { what: "key roster" },
        })?;
        let keys = spawn_blocking(move || roster.open(repository, &secret))
            .await
            .expect("opening a key slot does not panic")
            .map_err(|error| not_opened(error, name))?;
        let config = claimed.authenticate(&keys).map_err(damaged_config)?;
        Repository::assemble(store, keys, config, settings).await
    }

    async fn assemble(
        store: Store,
        keys: Keys,
        config: Config,
        settings: EngineSettings,
    ) -> Result<Repository, OpenError> {
        let (folder, repository) = (settings.cache.clone(), config.repository);
        let cache = spawn_blocking(move || Cache::open(folder.as_deref(), repository))
            .await
            .expect("using the cache folder does not panic")
            .map_err(OpenError::Cache)?;
        let keys = rosters::believed(&store, &cache, repository, keys).await?;
        let shared = Shared {
            store: store.with_object_lock(config.object_lock).able(config.store),
            keys: ArcSwap::from_pointee(keys),
            config,
            settings,
            cache,
            index: RwLock::new(Index::default()),
            refreshing: tokio::sync::Mutex::new(()),
        };
        Ok(Repository { shared: Arc::new(shared) })
    }

    /// The identity given at init.
    pub fn id(&self) -> RepositoryId {
        self.shared.config.repository
    }

    /// Whether the key that opened it can read disks back, or only store them.
    pub fn can_read(&self) -> bool {
        self.shared.keys().can_read()
    }

    /// Brings the index up to what the store holds now.
    pub(crate) async fn refresh(&self) -> Result<(), IndexError> {
        let _one_at_a_time = self.shared.refreshing.lock().await;
        let Shared { index, store, cache, .. } = &*self.shared;
        index::refresh(index, store, &self.shared.keys(), cache).await
    }

    /// The same repository with an index loaded just now, which nobody else changes.
    pub(crate) async fn frozen(&self) -> Result<Repository, IndexError> {
        let frozen = Repository { shared: self.shared.seen_through(Index::default()) };
        frozen.refresh().await?;
        Ok(frozen)
    }
}

fn damaged_config(source: Damage) -> OpenError {
    OpenError::Damaged { name: names::config().to_string(), source }
}

/// Why a roster did not open.
pub(crate) fn not_opened(error: RosterError, name: String) -> OpenError {
    match error {
        RosterError::NoSlot => OpenError::WrongSecret,
        RosterError::Cost(error) => OpenError::Kdf(error),
        RosterError::Damaged(Damage::WriteOnly(write_only)) => OpenError::WriteOnly(write_only),
        RosterError::Damaged(source) => OpenError::Damaged { name, source },
    }
}

async fn read_config(store: &Store) -> Result<Claimed, OpenError> {
    let name = names::config();
    let object = match store.get(&name).await {
        Ok(object) => object,
        Err(StoreError::NotFound { .. }) if store.is_empty().await? => return Err(OpenError::NoRepository),
        Err(StoreError::NotFound { .. }) => return Err(OpenError::Foreign),
        Err(error) => return Err(error.into()),
    };
    Config::decode(&object).map_err(|damage| match damage {
        Damage::Foreign { .. } => OpenError::Foreign,
        source => damaged_config(source),
    })
}

/// The machine's clock, for records that people read. Nothing is decided by it.
pub(crate) fn unix_ms_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
