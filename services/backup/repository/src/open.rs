//! Making a repository, and opening one with a secret.

use std::sync::Arc;

use bytes::Bytes;
use tokio::task::spawn_blocking;
use tracing::instrument;

use crate::chunker::{Chunker, StreamChunking};
use crate::damage::Damage;
use crate::format::config::{Config, UnverifiedConfig};
use crate::format::roster;
use crate::ids::RepositoryId;
use crate::index::Cache;
use crate::keys::{KdfCost, KeyRoster, Keys, Secret};
use crate::open_error::{OpenError, not_opened};
use crate::repository::{Repository, unix_ms_now};
use crate::rosters::{self, read_roster};
use crate::settings::EngineSettings;
use crate::shared::Shared;
use crate::store::{CreateOutcome, Store, StoreError, names};

impl Repository {
    /// Makes a repository in an empty place and opens it. The last of its writes is a create-if-absent, so of two
    /// that try at once one succeeds, and an init that was interrupted can be repeated.
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

    /// As [`Repository::init`], with another chunker for disks than the default. It cannot be changed later.
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
                    Err(Damage::WrongMagic { .. }) => OpenError::NotARepository,
                    _ => OpenError::RepositoryExists,
                });
            }
            Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let left_by_a_dead_init = store.list(&names::folder(names::KEYS)).await?.len()
            + store.list(&names::folder(names::PROBE)).await?.len();
        if left_by_a_dead_init == 0 && !store.is_empty().await? {
            return Err(OpenError::NotARepository);
        }
        let capabilities = store.probe_capabilities().await?;
        if !capabilities.are_sufficient() {
            return Err(OpenError::StoreUnsupported);
        }
        if store.object_lock().is_some() && !capabilities.object_lock {
            return Err(OpenError::ObjectLockUnsupported);
        }
        let repository = RepositoryId::generate();
        let now = unix_ms_now();
        let made = spawn_blocking(move || {
            let (roster, keys) = KeyRoster::first(repository, "first".into(), secret, cost, now)?;
            Ok((roster::encode(&roster, &keys)?, keys))
        });
        let (roster, keys) = made
            .await
            .expect("making keys does not panic")
            .map_err(|error| not_opened(error, names::roster(repository, 1).to_string()))?;
        let roster_name = names::roster(repository, 1);
        store.create_locked(&roster_name, Bytes::from(roster)).await?;
        let config = Config {
            repository,
            created_unix_ms: now,
            chunking: chunker.into(),
            stream_chunking: StreamChunking::default(),
            store: capabilities,
            object_lock: store.object_lock(),
        };
        let object = config.encode(&keys).map_err(damaged_config)?;
        match store.create_locked(&names::config(), Bytes::from(object)).await? {
            CreateOutcome::New => Repository::assemble(store, keys, config, settings).await,
            CreateOutcome::AlreadyThere => {
                // Another init was faster.
                store.delete(&roster_name).await?;
                Err(OpenError::RepositoryExists)
            }
        }
    }

    /// Opens a repository. Writes nothing to the store; the index is loaded by the first work that needs it.
    ///
    /// # Errors
    /// [`OpenError::NoRepository`] and [`OpenError::NotARepository`] where there is none, [`OpenError::WrongSecret`],
    /// [`OpenError::Damaged`] with [`Damage::NewerFormatVersion`] for a newer format, [`OpenError::KeyPin`] when the store shows other
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
        let keys = rosters::checked_against_pin(&store, &cache, repository, keys).await?;
        let store = store.with_object_lock(config.object_lock).with_capabilities(config.store);
        Ok(Repository { shared: Shared::new(store, Arc::new(keys), config, settings, cache) })
    }
}

fn damaged_config(source: Damage) -> OpenError {
    OpenError::Damaged { name: names::config().to_string(), source }
}

async fn read_config(store: &Store) -> Result<UnverifiedConfig, OpenError> {
    let name = names::config();
    let object = match store.get(&name).await {
        Ok(object) => object,
        Err(StoreError::NotFound { .. }) if store.is_empty().await? => return Err(OpenError::NoRepository),
        Err(StoreError::NotFound { .. }) => return Err(OpenError::NotARepository),
        Err(error) => return Err(error.into()),
    };
    Config::decode(&object).map_err(|damage| match damage {
        Damage::WrongMagic { .. } => OpenError::NotARepository,
        source => damaged_config(source),
    })
}
