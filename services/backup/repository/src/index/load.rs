//! Bringing the index up to what the store lists, and writing shards.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use tokio::task::spawn_blocking;
use ulid::Ulid;

use super::rows::ShardRows;
use super::{Cache, Index, IndexError, ListedPack, list_packs};
use crate::format::pack::Directory;
use crate::format::{encrypted, shard};
use crate::ids::PackId;
use crate::keys::Keys;
use crate::store::{Store, StoreError, names};

/// Shards read at the same time.
const READS_IN_FLIGHT: usize = 4;
/// Attempts at loading when a shard vanishes while it is read, because a collection merged it.
const LOADS_MAX: usize = 5;
const HELD: &str = "no thread panics while holding the index";

/// Loads into `index` everything that the store lists and that is not known yet, and drops what is gone.
pub(crate) async fn refresh(
    index: &RwLock<Index>,
    store: &Store,
    keys: &Arc<Keys>,
    cache: &Cache,
) -> Result<(), IndexError> {
    for _ in 0..LOADS_MAX {
        match refresh_once(index, store, keys, cache).await {
            // A shard was merged into another between listing and reading.
            Err(IndexError::Store(StoreError::NotFound { .. })) => {}
            outcome => return outcome,
        }
    }
    Err(IndexError::KeptChanging)
}

async fn refresh_once(
    index: &RwLock<Index>,
    store: &Store,
    keys: &Arc<Keys>,
    cache: &Cache,
) -> Result<(), IndexError> {
    let known = index.read().expect(HELD).shards.clone();
    // Packs are listed after the shards: a pack is written before its shard, so none is missed.
    let listed = store.list(&names::folder(names::INDEX)).await?;
    let present = list_packs(store).await?;
    // One whose local file a person has removed is read again.
    let known_here =
        |name: &str| known.iter().find(|shard| shard.name() == name && shard.is_there()).cloned();
    let mut loads = Vec::with_capacity(listed.len());
    for listed in listed {
        let known = known_here(listed.path.as_ref());
        // Unboxed, the compiler cannot tell callers that loading is `Send`.
        loads.push(load(store, keys, cache, listed.path, known).boxed());
    }
    let shards: Vec<_> = futures::stream::iter(loads).buffered(READS_IN_FLIGHT).try_collect().await?;
    let named = replace_shards(&mut index.write().expect(HELD), &known, shards, &present);
    let cache = cache.clone();
    spawn_blocking(move || cache.keep_only(&named)).await.expect("removing files does not panic");
    Ok(())
}

/// Makes the index what was listed, and returns the names of its shards.
fn replace_shards(
    index: &mut Index,
    known: &[Arc<ShardRows>],
    shards: Vec<Arc<ShardRows>>,
    present: &HashMap<PackId, ListedPack>,
) -> HashSet<String> {
    let was_known = |name: &str| known.iter().any(|shard| shard.name() == name);
    let loaded: HashSet<_> = shards.iter().map(|shard| shard.name().to_owned()).collect();
    // A shard that this process wrote after the listing is kept; one that was listed before and is not now was merged.
    let written_since =
        index.shards.iter().filter(|shard| !loaded.contains(shard.name()) && !was_known(shard.name()));
    let shards: Vec<_> = shards.iter().cloned().chain(written_since.cloned()).collect();
    let of_listed = shards.iter().filter(|shard| loaded.contains(shard.name()));
    let gone_before: HashSet<_> = of_listed
        .flat_map(|shard| shard.packs().map(|head| head.id))
        .filter(|pack| !present.contains_key(pack))
        .collect();
    index.shards = shards;
    index.gone = gone_before;
    index.shards.iter().map(|shard| shard.name().to_owned()).collect()
}

async fn load(
    store: &Store,
    keys: &Arc<Keys>,
    cache: &Cache,
    path: Path,
    known: Option<Arc<ShardRows>>,
) -> Result<Arc<ShardRows>, IndexError> {
    if let Some(known) = known {
        return Ok(known);
    }
    let kept = {
        let (keys, cache, name) = (Arc::clone(keys), cache.clone(), path.to_string());
        spawn_blocking(move || cache.kept(&keys, &name)).await.expect("reading a file does not panic")
    };
    if let Some(rows) = kept {
        return Ok(Arc::new(rows));
    }
    let (path, directories) = read_shard(store, keys, path).await?;
    keep(keys, cache, path.to_string(), directories).await
}

async fn keep(
    keys: &Arc<Keys>,
    cache: &Cache,
    name: String,
    directories: Vec<Directory>,
) -> Result<Arc<ShardRows>, IndexError> {
    let (keys, cache) = (Arc::clone(keys), cache.clone());
    spawn_blocking(move || cache.keep(&keys, &name, &directories).map(Arc::new))
        .await
        .expect("sorting rows does not panic")
}

/// Reads a shard.
pub(crate) async fn read_shard(
    store: &Store,
    keys: &Keys,
    path: Path,
) -> Result<(Path, Vec<Directory>), IndexError> {
    let object = store.get(&path).await?;
    let directories = encrypted::decrypt(keys, &path, "index shard", &object)
        .and_then(|text| shard::decode(&text))
        .map_err(|source| IndexError::Damaged { name: path.to_string(), source })?;
    Ok((path, directories))
}

/// Writes a shard that lists some stored packs; `index`, where given, then contains their blobs. A cache folder keeps its
/// rows, so that this host does not have to read it.
pub(crate) async fn put_shard(
    index: Option<&RwLock<Index>>,
    store: &Store,
    keys: &Arc<Keys>,
    cache: &Cache,
    directories: Vec<Directory>,
) -> Result<(), IndexError> {
    let name = names::entry(names::INDEX, Ulid::generate());
    let object = encrypted::encrypt(keys, &name, shard::encode(&directories));
    store.put(&name, Bytes::from(object)).await?;
    match index {
        Some(index) => {
            let rows = keep(keys, cache, name.to_string(), directories).await?;
            index.write().expect(HELD).adopt(rows);
        }
        // Rows that cannot be cached are read again.
        None if cache.folder().is_some() => drop(keep(keys, cache, name.to_string(), directories).await),
        None => {}
    }
    Ok(())
}
