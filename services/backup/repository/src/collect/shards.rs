//! Keeping the index shards few and free of packs that are gone.

use std::sync::Arc;

use crate::format::pack::Directory;
use crate::index::{self, Cache, IndexError, SHARD_ROWS};
use crate::keys::Keys;
use crate::store::{Store, StoreError, names};

/// Small shards are merged when there are more than this: each backup writes at least one.
const SMALL_SHARDS_MAX: usize = 16;

/// Merges small shards and leaves out packs that are gone. New shards are written before old ones are removed, so
/// that a reader always finds everything; one that meets a removed shard begins anew.
pub(super) async fn tidy(store: &Store, keys: &Arc<Keys>, cache: &Cache) -> Result<(), IndexError> {
    let shards = store.list(&names::folder(names::INDEX)).await?;
    let present = index::list_packs(store).await?;
    let mut replaced = Vec::new();
    let mut kept: Vec<Directory> = Vec::new();
    let mut any_stale = false;
    for listed in shards {
        let (path, directories) = match index::read_shard(store, keys, listed.path).await {
            Ok(shard) => shard,
            // Another collection has merged it.
            Err(IndexError::Store(StoreError::NotFound { .. })) => continue,
            Err(error) => return Err(error),
        };
        let stale = directories.iter().any(|directory| !present.contains_key(&directory.head.id));
        if stale || rows(&directories) < SHARD_ROWS / 2 {
            any_stale |= stale;
            replaced.push(path);
            kept.extend(directories.into_iter().filter(|directory| present.contains_key(&directory.head.id)));
        }
    }
    if !any_stale && replaced.len() <= SMALL_SHARDS_MAX {
        return Ok(());
    }
    let mut shard = Vec::new();
    for directory in kept {
        shard.push(directory);
        if rows(&shard) >= SHARD_ROWS {
            index::put_shard(None, store, keys, cache, std::mem::take(&mut shard)).await?;
        }
    }
    if !shard.is_empty() {
        index::put_shard(None, store, keys, cache, shard).await?;
    }
    for path in replaced {
        store.delete(&path).await?;
    }
    Ok(())
}

fn rows(directories: &[Directory]) -> usize {
    directories.iter().map(|directory| directory.entries.len()).sum()
}
