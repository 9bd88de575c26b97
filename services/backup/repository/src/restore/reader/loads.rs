//! Each value is loaded once, however many callers want it.
//!
//! ```text
//!   claim(keys) ──> kept: returned
//!               ──> loading: wait for that load
//!               ──> neither: one load of all such keys, a task of its own; when it ends, its values are kept
//! ```
//!
//! A load goes on when its caller is gone: its values are kept for the next one.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};

use super::lru::Lru;
use crate::restore::ReadError;

type Outcome<K, V> = Result<Arc<HashMap<K, V>>, Arc<ReadError>>;
type Loading<K, V> = Shared<BoxFuture<'static, Outcome<K, V>>>;

pub(super) struct LoadingCache<K, V> {
    state: Mutex<State<K, V>>,
    weigh: fn(&V) -> usize,
}

struct State<K, V> {
    kept: Lru<K, V>,
    under_way: HashMap<K, Loading<K, V>>,
}

/// Values that are kept, and values that are being loaded.
pub(super) struct CacheLookup<K, V> {
    there: HashMap<K, V>,
    coming: Vec<(Vec<K>, Loading<K, V>)>,
}

impl<K, V> LoadingCache<K, V>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// `weigh` returns the bytes that a kept value takes.
    pub(super) fn new(bytes_max: usize, weigh: fn(&V) -> usize) -> Arc<LoadingCache<K, V>> {
        let state = State { kept: Lru::new(bytes_max), under_way: HashMap::new() };
        Arc::new(LoadingCache { state: Mutex::new(state), weigh })
    }

    fn lock(&self) -> MutexGuard<'_, State<K, V>> {
        self.state.lock().expect("no thread panics while holding what was loaded")
    }

    /// Begins one load of what is neither kept nor being loaded.
    pub(super) fn claim<F>(
        self: &Arc<Self>,
        keys: impl IntoIterator<Item = K>,
        load: impl FnOnce(Vec<K>) -> F,
    ) -> CacheLookup<K, V>
    where
        F: Future<Output = Result<Vec<(K, V)>, ReadError>> + Send + 'static,
    {
        let mut claim = CacheLookup { there: HashMap::new(), coming: Vec::new() };
        let mut missing = Vec::new();
        let mut state = self.lock();
        for key in keys {
            if let Some(value) = state.kept.get(&key) {
                claim.there.insert(key, value);
            } else if let Some(loading) = state.under_way.get(&key) {
                claim.coming.push((vec![key], loading.clone()));
            } else {
                missing.push(key);
            }
        }
        if !missing.is_empty() {
            let loading = self.begin(missing.clone(), load(missing.clone()));
            for key in &missing {
                state.under_way.insert(key.clone(), loading.clone());
            }
            // It waits for the lock before it ends, so it ends after this.
            tokio::spawn(loading.clone());
            claim.coming.push((missing, loading));
        }
        claim
    }

    fn begin(
        self: &Arc<Self>,
        keys: Vec<K>,
        load: impl Future<Output = Result<Vec<(K, V)>, ReadError>> + Send + 'static,
    ) -> Loading<K, V> {
        let loads = Arc::clone(self);
        async move {
            let loaded = load.await;
            let mut state = loads.lock();
            for key in &keys {
                state.under_way.remove(key);
            }
            let loaded = loaded.map_err(Arc::new)?;
            for (key, value) in &loaded {
                state.kept.insert(key.clone(), value.clone(), (loads.weigh)(value));
            }
            Ok(Arc::new(loaded.into_iter().collect()))
        }
        .boxed()
        .shared()
    }
}

impl<K: Eq + Hash + Clone, V: Clone> CacheLookup<K, V> {
    /// Everything that was claimed.
    pub(super) async fn all(self) -> Result<HashMap<K, V>, Arc<ReadError>> {
        let CacheLookup { mut there, coming } = self;
        for (keys, loading) in coming {
            let loaded = loading.await?;
            there.extend(keys.into_iter().filter_map(|key| loaded.get_key_value(&key).map(owned)));
        }
        Ok(there)
    }
}

fn owned<K: Clone, V: Clone>((key, value): (&K, &V)) -> (K, V) {
    (key.clone(), value.clone())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::damage::Damage;

    #[tokio::test(flavor = "multi_thread")]
    async fn concurrent_claims_cause_one_load_and_a_failed_load_is_retried() {
        let loads = LoadingCache::new(100, |_: &u32| 1);
        let (begun, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let load = |keys: Vec<u32>| {
            let (begun, gate) = (Arc::clone(&begun), Arc::clone(&gate));
            async move {
                begun.fetch_add(1, Ordering::SeqCst);
                let _go = gate.acquire().await;
                Ok(keys.into_iter().map(|key| (key, key + 1)).collect())
            }
        };
        let claims: Vec<_> = (0..8).map(|asker| loads.claim([1, 2, 3 + asker % 2], load)).collect();
        gate.add_permits(1);
        for (asker, claim) in (0..).zip(claims) {
            let all = claim.all().await.unwrap();
            assert_eq!((all[&1], all[&2], all[&(3 + asker % 2)]), (2, 3, 4 + asker % 2));
        }
        assert_eq!(begun.load(Ordering::SeqCst), 2, "the second caller wanted one key more");

        let missing = || Err(ReadError::Damaged(Damage::Missing { what: "pack" }));
        assert!(loads.claim([9], |_| async move { missing() }).all().await.is_err());
        assert_eq!(loads.claim([9], load).all().await.unwrap()[&9], 10);
    }
}
