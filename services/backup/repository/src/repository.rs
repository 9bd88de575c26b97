//! The repository: made once, opened with a secret.

use std::sync::{Arc, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tracing::instrument;
use ulid::Ulid;

use crate::chunker::Chunking;
use crate::format::config::{Claimed, Config};
use crate::format::{Damage, RepositoryId};
use crate::index::{self, Index, IndexError};
use crate::keys::{KdfCost, Keys, MasterKey, Secret, Slot, SlotError};
use crate::settings::EngineSettings;
use crate::store::{Created, Store, StoreError, names};

/// An open repository. Cheap to clone; all clones share keys and index.
#[derive(Clone)]
pub struct Repository {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) keys: Arc<Keys>,
    pub(crate) config: Config,
    pub(crate) settings: EngineSettings,
    /// Read by every worker for every chunk, written when a pack was stored.
    pub(crate) index: RwLock<Index>,
    /// Two refreshes at once would read the same shards twice.
    refreshing: tokio::sync::Mutex<()>,
}

impl Shared {
    /// The same repository seen through another index.
    pub(crate) fn seen_through(&self, index: Index) -> Arc<Shared> {
        Arc::new(Shared {
            store: self.store.clone(),
            keys: Arc::clone(&self.keys),
            config: self.config.clone(),
            settings: self.settings,
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
    /// The store failed.
    #[error("could not reach the repository")]
    Store(#[from] StoreError),
}

impl Repository {
    /// Makes a repository in an empty place and opens it. The last of its writes is a create-if-absent, so of two
    /// that try at once one succeeds, and an init that died half way can be repeated.
    ///
    /// # Errors
    /// When there is a repository or anything else already, or the store fails.
    #[instrument(name = "repository.init", skip_all)]
    pub async fn init(
        store: Store,
        secret: Secret,
        cost: KdfCost,
        settings: EngineSettings,
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
        let left_by_a_dead_init = store.list(&names::folder(names::KEYS)).await?.len();
        if left_by_a_dead_init == 0 && !store.is_empty().await? {
            return Err(OpenError::Foreign);
        }
        let repository = RepositoryId::generate();
        let (keys, slot) = spawn_blocking(move || {
            let master = MasterKey::generate();
            Slot::wrap(&master, repository, &secret, cost).map(|slot| (master.derive(), slot))
        })
        .await
        .expect("wrapping a key does not panic")
        .map_err(OpenError::Kdf)?;
        let slot_name = names::entry(names::KEYS, Ulid::generate());
        store.put(&slot_name, Bytes::from(slot.encode())).await?;
        let config = Config { repository, created_unix_ms: unix_ms_now(), chunking: Chunking::default() };
        match store.create(&names::config(), Bytes::from(config.encode(&keys))).await? {
            Created::New => Ok(Repository::assemble(store, keys, config, settings)),
            Created::AlreadyThere => {
                // Either another init was faster, or our own write arrived and its answer was lost.
                let object = store.get(&names::config()).await?;
                let ours = Config::decode(&object).and_then(|claimed| claimed.authenticate(&keys));
                if ours.is_ok_and(|found| found == config) {
                    return Ok(Repository::assemble(store, keys, config, settings));
                }
                store.delete(&slot_name).await?;
                Err(OpenError::AlreadyThere)
            }
        }
    }

    /// Opens a repository. Writes nothing; the index is loaded by the first work that needs it.
    ///
    /// # Errors
    /// [`OpenError::NoRepository`] and [`OpenError::Foreign`] where there is none, [`OpenError::WrongSecret`],
    /// [`OpenError::Damaged`] with [`Damage::Newer`] for a newer format, or when the store fails.
    #[instrument(name = "repository.open", skip_all)]
    pub async fn open(
        store: Store,
        secret: Secret,
        settings: EngineSettings,
    ) -> Result<Repository, OpenError> {
        let claimed = read_config(&store).await?;
        let slots = read_slots(&store).await?;
        let repository = claimed.config.repository;
        let keys = spawn_blocking(move || open_slots(&slots, repository, &secret))
            .await
            .expect("opening a key slot does not panic")?;
        let config = claimed
            .authenticate(&keys)
            .map_err(|source| OpenError::Damaged { name: names::config().to_string(), source })?;
        Ok(Repository::assemble(store, keys, config, settings))
    }

    fn assemble(store: Store, keys: Keys, config: Config, settings: EngineSettings) -> Repository {
        let shared = Shared {
            store,
            keys: Arc::new(keys),
            config,
            settings,
            index: RwLock::new(Index::default()),
            refreshing: tokio::sync::Mutex::new(()),
        };
        Repository { shared: Arc::new(shared) }
    }

    /// The identity given at init.
    pub fn id(&self) -> RepositoryId {
        self.shared.config.repository
    }

    /// Brings the index up to what the store holds now.
    pub(crate) async fn refresh(&self) -> Result<(), IndexError> {
        let _one_at_a_time = self.shared.refreshing.lock().await;
        let Shared { index, store, keys, .. } = &*self.shared;
        index::refresh(index, store, keys).await
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
        source => OpenError::Damaged { name: name.to_string(), source },
    })
}

async fn read_slots(store: &Store) -> Result<Vec<Slot>, OpenError> {
    let mut slots = Vec::new();
    for listed in store.list(&names::folder(names::KEYS)).await? {
        let object = store.get(&listed.path).await?;
        let slot = Slot::decode(&object)
            .map_err(|source| OpenError::Damaged { name: listed.path.to_string(), source })?;
        slots.push(slot);
    }
    Ok(slots)
}

fn open_slots(slots: &[Slot], repository: RepositoryId, secret: &Secret) -> Result<Keys, OpenError> {
    for slot in slots {
        match slot.unwrap(repository, secret) {
            Ok(master) => return Ok(master.derive()),
            Err(SlotError::NotOurs) => {}
            Err(SlotError::Cost(error)) => return Err(OpenError::Kdf(error)),
        }
    }
    Err(OpenError::WrongSecret)
}

/// The machine's clock, for records that people read. Nothing is decided by it.
pub(crate) fn unix_ms_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
