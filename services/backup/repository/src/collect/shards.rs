//! Keeping the index shards few and free of packs that are gone.

use object_store::path::Path;

use crate::format::pack::Directory;
use crate::index::{self, IndexError, SHARD_ROWS};
use crate::repository::Repository;
use crate::shared::Shared;
use crate::store::StoreError;

/// Small shards are merged when there are more than this: each backup writes at least one.
const SMALL_SHARDS_MAX: usize = 16;

/// Merges small shards and leaves out packs that are gone; no other shard is read. New shards are written before old
/// ones are removed, so that a reader always finds everything; one that misses a removed shard starts again.
pub(super) async fn tidy(repository: &Repository) -> Result<(), IndexError> {
    let frozen = repository.with_fresh_index().await?;
    let Shared { store, cache, .. } = &*repository.shared;
    let keys = &repository.shared.keys();
    let index = frozen.shared.index.read().expect("no thread panics while holding the index").clone();
    let to_replace: Vec<_> = index
        .outlines()
        .filter(|shard| shard.lists_deleted_packs || (shard.rows as usize) < SHARD_ROWS / 2)
        .map(|shard| (Path::from(shard.name), shard.lists_deleted_packs))
        .collect();
    let any_stale = to_replace.iter().any(|(_, is_stale)| *is_stale);
    if !any_stale && to_replace.len() <= SMALL_SHARDS_MAX {
        return Ok(());
    }
    let mut replaced = Vec::new();
    let mut kept: Vec<Directory> = Vec::new();
    for (name, _) in to_replace {
        match index::read_shard(store, keys, name).await {
            Ok((name, directories)) => {
                replaced.push(name);
                kept.extend(
                    directories.into_iter().filter(|directory| !index.is_gone(&directory.descriptor.id)),
                );
            }
            // Another collection has merged it.
            Err(IndexError::Store(StoreError::NotFound { .. })) => {}
            Err(error) => return Err(error),
        }
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
    Ok(store.delete_all(&replaced).await?)
}

fn rows(directories: &[Directory]) -> usize {
    directories.iter().map(|directory| directory.entries.len()).sum()
}
