//! Stores finished packs, several at a time, and the index shards that list them.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tracing::{Instrument, debug_span};

use super::packer::FinishedPack;
use super::session::Session;
use crate::format::pack::{Directory, PackEncryptionInfo, PackKind};
use crate::ids::PackId;
use crate::index::{IndexError, SHARD_ROWS, put_shard};
use crate::shared::Shared;
use crate::store::{StoreError, names};

/// Claims that are kept where nothing is stored: 100 MiB of them.
const CLAIMS_MAX: usize = 2 * 1024 * 1024;

/// A pack that the store confirmed.
pub(super) struct StoredPack {
    pub(super) kind: PackKind,
    pub(super) id: PackId,
    pub(super) bytes: u64,
}

/// Runs until the session has ended its queue and all packs are stored and indexed.
pub(super) async fn all(
    session: &Session,
    mut packs: mpsc::Receiver<FinishedPack>,
) -> Result<Vec<StoredPack>, IndexError> {
    let mut confirmed = Vec::new();
    let mut uploads = FuturesUnordered::new();
    let mut unindexed: Vec<Directory> = Vec::new();
    let mut more_to_come = true;
    while more_to_come || !uploads.is_empty() {
        tokio::select! {
            pack = packs.recv(), if more_to_come => match pack {
                Some(pack) => uploads.push(put_pack(session, pack)),
                None => more_to_come = false,
            },
            Some(stored) = uploads.next() => {
                let (directory, bytes) = stored?;
                let PackEncryptionInfo { kind, id, .. } = directory.descriptor;
                confirmed.push(StoredPack { kind, id, bytes });
                unindexed.push(directory);
                if unindexed.iter().map(|d| d.entries.len()).sum::<usize>() >= SHARD_ROWS {
                    index_packs(session, std::mem::take(&mut unindexed)).await?;
                }
            }
        }
    }
    if !unindexed.is_empty() {
        index_packs(session, unindexed).await?;
    }
    Ok(confirmed)
}

/// Runs until the session has ended its queue, and stores nothing.
pub(super) async fn none(session: &Session, mut packs: mpsc::Receiver<FinishedPack>) -> Vec<StoredPack> {
    let mut rows = 0;
    while let Some(pack) = packs.recv().await {
        rows += pack.directory.entries.len();
        // Claims take memory: now and then they are released, at the cost of counting some blobs twice.
        if rows > CLAIMS_MAX {
            session.release_all_claims();
            rows = 0;
        }
    }
    Vec::new()
}

async fn index_packs(session: &Session, directories: Vec<Directory>) -> Result<(), IndexError> {
    let Shared { index, store, cache, .. } = &*session.shared;
    let ids: Vec<_> = directories.iter().flat_map(|directory| &directory.entries).map(|e| e.id).collect();
    put_shard(Some(index), store, &session.keys, cache, directories).await?;
    session.release_claims(&ids);
    Ok(())
}

/// The permit is released when the pack is stored and its memory free.
async fn put_pack(session: &Session, pack: FinishedPack) -> Result<(Directory, u64), StoreError> {
    let FinishedPack { object_bytes: object, directory, permit } = pack;
    let bytes = object.len() as u64;
    let name = names::pack(directory.descriptor.kind, directory.descriptor.id);
    let span = debug_span!("repository.put_pack", pack = %directory.descriptor.id, bytes = object.len());
    session.shared.store.put_locked(&name, object).instrument(span).await?;
    drop(permit);
    Ok((directory, bytes))
}
