//! Rebuilding the index from the packs, when shards are lost or damaged.

use std::sync::{Arc, RwLock};

use futures::StreamExt;
use tracing::{instrument, warn};

use crate::format::pack::{self, Directory, FOOTER_BYTES, Footer};
use crate::ids::PackId;
use crate::index::{self, Index, ListedPack, SHARD_ROWS};
use crate::progress::Progress;
use crate::repository::Repository;
use crate::restore::ReadError;
use crate::shared::Shared;
use crate::store::names;

/// Packs whose directories are read at one time: small requests, bound by latency.
const DIRECTORY_READS_IN_FLIGHT: usize = 16;
/// A first read this long holds the directory of nearly every pack, so that one request per pack is enough.
const TAIL_BYTES: u64 = 128 * 1024;

/// What rebuilding found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RebuildIndexReport {
    /// Packs that are in the new index.
    pub packs: u64,
    /// Blobs in them.
    pub blobs: u64,
    /// Names of packs that could not be read, with the reason. They are not changed.
    pub unreadable_packs: Vec<(String, String)>,
}

impl Repository {
    /// Reads the directory of every pack, writes a new index and removes the old one. Safe beside running backups:
    /// only shards that were there before the packs were listed are removed.
    ///
    /// # Errors
    /// When the store fails. A damaged pack is not an error but is listed in the report.
    #[instrument(name = "repository.rebuild_index", skip(self, progress))]
    pub async fn rebuild_index(&self, progress: &Arc<Progress>) -> Result<RebuildIndexReport, ReadError> {
        let Shared { store, index, cache, .. } = &*self.shared;
        let keys = &self.shared.keys();
        let old_shards = store.list(&names::folder(names::INDEX)).await?;
        let packs = index::list_packs(store).await?;
        progress.expect_bytes(packs.values().map(|listed| listed.bytes).sum());
        let mut report = RebuildIndexReport::default();
        let mut unnamed: Vec<Directory> = Vec::new();
        let mut rows = 0;
        let mut directories = futures::stream::iter(packs)
            .map(|(id, listed)| async move { (id, listed, read_directory(&self.shared, id, listed).await) })
            .buffer_unordered(DIRECTORY_READS_IN_FLIGHT);
        while let Some((id, listed, directory)) = directories.next().await {
            progress.done(listed.bytes);
            match directory {
                Ok(directory) => {
                    report.packs += 1;
                    report.blobs += directory.entries.len() as u64;
                    rows += directory.entries.len();
                    unnamed.push(directory);
                    if rows >= SHARD_ROWS {
                        index::put_shard(None, store, keys, cache, std::mem::take(&mut unnamed)).await?;
                        rows = 0;
                    }
                }
                Err(ReadError::DamagedPack { pack, source }) => {
                    warn!(pack, error = %source, "pack left out of the index");
                    report
                        .unreadable_packs
                        .push((names::pack(listed.kind, id).to_string(), source.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
        if !unnamed.is_empty() {
            index::put_shard(None, store, keys, cache, unnamed).await?;
        }
        store.delete_all(&old_shards.into_iter().map(|shard| shard.path).collect::<Vec<_>>()).await?;
        let fresh = RwLock::new(Index::default());
        index::refresh(&fresh, store, keys, cache).await?;
        let held = "no thread panics while holding the index";
        *index.write().expect(held) = fresh.into_inner().expect(held);
        Ok(report)
    }
}

/// Reads the directory of a pack.
pub(crate) async fn read_directory(
    shared: &Shared,
    id: PackId,
    listed: ListedPack,
) -> Result<Directory, ReadError> {
    let damaged = |source| ReadError::DamagedPack { pack: id.to_string(), source };
    let ListedPack { kind, bytes, .. } = listed;
    let name = names::pack(kind, id);
    let short = crate::Damage::Malformed { what: "pack", why: "it is shorter than a footer" };
    let tail_start = bytes.saturating_sub(TAIL_BYTES);
    let tail = match bytes {
        0 => return Err(damaged(short)),
        _ => shared.store.get_range(&name, tail_start..bytes).await?,
    };
    let footer = tail.last_chunk::<FOOTER_BYTES>().ok_or_else(|| damaged(short))?;
    let footer = Footer::decode(id, kind, bytes, footer).map_err(damaged)?;
    let range = footer.directory();
    let encrypted = match range.start.checked_sub(tail_start) {
        Some(at) => tail.slice(at as usize..(range.end - tail_start) as usize),
        None => shared.store.get_range(&name, range.clone()).await?,
    };
    pack::decrypt_directory(&shared.keys(), &footer, &encrypted).map_err(damaged)
}
