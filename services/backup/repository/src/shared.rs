//! What all clones of an open repository share.

use std::sync::{Arc, RwLock};

use arc_swap::ArcSwap;

use crate::format::config::Config;
use crate::index::{self, Cache, Index, IndexError};
use crate::keys::Keys;
use crate::settings::EngineSettings;
use crate::store::Store;

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
    /// With an empty index, which the first [`Shared::refresh`] fills.
    pub(crate) fn new(
        store: Store,
        keys: Arc<Keys>,
        config: Config,
        settings: EngineSettings,
        cache: Cache,
    ) -> Arc<Shared> {
        Arc::new(Shared {
            store,
            keys: ArcSwap::new(keys),
            config,
            settings,
            cache,
            index: RwLock::default(),
            refreshing: tokio::sync::Mutex::default(),
        })
    }

    /// The same repository with an empty index of its own.
    pub(crate) fn with_own_index(&self) -> Arc<Shared> {
        let Shared { store, config, settings, cache, .. } = self;
        Shared::new(store.clone(), self.keys(), config.clone(), settings.clone(), cache.clone())
    }

    /// The keys in use now; a new epoch may come at any time.
    pub(crate) fn keys(&self) -> Arc<Keys> {
        self.keys.load_full()
    }

    /// From now on work uses these keys.
    pub(crate) fn use_keys(&self, keys: Keys) {
        self.keys.store(Arc::new(keys));
    }

    /// Brings the index up to what the store holds now.
    pub(crate) async fn refresh(&self) -> Result<(), IndexError> {
        let _one_at_a_time = self.refreshing.lock().await;
        index::refresh(&self.index, &self.store, &self.keys(), &self.cache).await
    }
}
