//! Stores finished packs, several at a time, and the index shards that name them.

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tracing::{Instrument, debug_span};

use super::packer::FinishedPack;
use super::session::Session;
use crate::format::pack::Directory;
use crate::index::{SHARD_ROWS, put_shard};
use crate::store::{StoreError, names};

/// Runs until the session has ended its queue and all packs are stored and indexed.
pub(super) async fn all(
    session: &Session,
    mut packs: mpsc::Receiver<FinishedPack>,
) -> Result<(), StoreError> {
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
                let directory = stored?;
                session.stored(&directory);
                unindexed.push(directory);
                if unindexed.iter().map(|d| d.entries.len()).sum::<usize>() >= SHARD_ROWS {
                    put_shard(&session.shared.store, &session.shared.keys, &std::mem::take(&mut unindexed)).await?;
                }
            }
        }
    }
    if unindexed.is_empty() {
        Ok(())
    } else {
        put_shard(&session.shared.store, &session.shared.keys, &unindexed).await
    }
}

/// The permit goes when the pack is stored and its memory free.
async fn put_pack(session: &Session, pack: FinishedPack) -> Result<Directory, StoreError> {
    let FinishedPack { object, directory, permit } = pack;
    let name = names::pack(directory.kind, directory.pack);
    let span = debug_span!("repository.put_pack", pack = %directory.pack, bytes = object.len());
    session.shared.store.put(&name, object).instrument(span).await?;
    drop(permit);
    Ok(directory)
}
