//! A summary of a repository.

use std::collections::HashMap;

use tracing::instrument;

use crate::chunker::Chunker;
use crate::ids::RepositoryId;
use crate::index;
use crate::repository::Repository;
use crate::restore::ReadError;
use crate::store::{Capabilities, ObjectLock};

/// A summary of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// The id given at init.
    pub id: RepositoryId,
    /// When it was made, in milliseconds since 1970.
    pub created_unix_ms: u64,
    /// What the store was seen to be able to do then.
    pub store: Capabilities,
    /// The chunker of disks.
    pub chunker: Chunker,
    /// The Object Lock of packs and snapshots.
    pub object_lock: Option<ObjectLock>,
    /// Snapshots in it.
    pub snapshots: u64,
    /// Packs in it, of chunks and of recipes.
    pub packs: u64,
    /// Their bytes in the store.
    pub stored_bytes: u64,
    /// Blobs in the index.
    pub blobs: u64,
    /// Bytes of memory that the index takes here.
    pub index_memory_bytes: u64,
    /// Keys that open it.
    pub keys: u64,
    /// The epoch of its keys.
    pub epoch: u32,
    /// Whether the key that opened it can read.
    pub can_read: bool,
}

impl Repository {
    /// Loads the index and lists packs and snapshots.
    ///
    /// # Errors
    /// When the store fails or the index is damaged.
    #[instrument(name = "repository.info", skip_all)]
    pub async fn info(&self) -> Result<Info, ReadError> {
        self.refresh().await?;
        let packs: HashMap<_, _> = index::list_packs(&self.shared.store).await?;
        let snapshots = self.snapshot_ids().await?.len() as u64;
        let keys = self.shared.keys();
        let index = self.shared.index.read().expect("no thread panics while holding the index");
        Ok(Info {
            id: self.id(),
            created_unix_ms: self.shared.config.created_unix_ms,
            store: self.shared.config.store,
            chunker: self.shared.config.chunking.chunker(),
            object_lock: self.shared.config.object_lock,
            snapshots,
            packs: packs.len() as u64,
            stored_bytes: packs.values().map(|pack| pack.bytes).sum(),
            blobs: index.rows(),
            index_memory_bytes: index.memory_bytes() as u64,
            keys: keys.slots(),
            epoch: keys.current().number,
            can_read: keys.can_read(),
        })
    }
}
