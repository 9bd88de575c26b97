//! One running backup: what it has claimed to store, its packers, its bounds.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use super::packer::{FinishedPack, Packer, WorkerError};
use crate::chunker::{DiskChunker, PieceRange};
use crate::format::blob;
use crate::format::pack::PackKind;
use crate::format::recipe::{self, Piece};
use crate::ids::{BlobId, BlobKind, PackId};
use crate::index::IndexError;
use crate::keys::{Keys, TAG_BYTES};
use crate::progress::{Progress, raise};
use crate::recut::SegmentPart;
use crate::shared::Shared;

pub(super) struct Session {
    pub(super) shared: Arc<Shared>,
    /// The keys of the moment when the backup began.
    pub(super) keys: Arc<Keys>,
    pub(super) progress: Arc<Progress>,
    /// Packs that a collection is about to delete: what they hold counts as not stored.
    pub(super) condemned: HashSet<PackId>,
    /// Blobs that a worker of this backup is storing and that no shard lists yet. Never shared with other backups: this
    /// one may die before, and then no other process finds what it stored.
    claimed: Mutex<HashSet<BlobId>>,
    packers: [Packer; 2],
    permits: Arc<Semaphore>,
    workers: Arc<Semaphore>,
}

/// Wakes workers that wait for a pack permit when the backup ends, however it ends.
pub(super) struct CloseSemaphoreOnDrop(Arc<Semaphore>);

impl Drop for CloseSemaphoreOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Session {
    /// A session and the queue of its finished packs.
    pub(super) fn begin(
        shared: Arc<Shared>,
        progress: Arc<Progress>,
        condemned: HashSet<PackId>,
    ) -> (Arc<Session>, mpsc::Receiver<FinishedPack>) {
        let packs_max = shared.settings.packs_in_flight();
        let permits = Arc::new(Semaphore::new(packs_max));
        let (sender, packs) = mpsc::channel(packs_max);
        let packers = PackKind::ALL.map(|kind| Packer::new(kind, Arc::clone(&permits), sender.clone()));
        let workers = Arc::new(Semaphore::new(shared.settings.workers.get()));
        let claimed = Mutex::default();
        let keys = shared.keys();
        (Arc::new(Session { shared, keys, progress, condemned, claimed, packers, permits, workers }), packs)
    }

    pub(super) fn stop_on_drop(&self) -> CloseSemaphoreOnDrop {
        CloseSemaphoreOnDrop(Arc::clone(&self.permits))
    }

    /// Runs CPU work on a worker thread, at most as many at a time as the settings say. It waits for its permit in a
    /// task of its own: a future that got the permit and is not polled would block all others.
    pub(super) async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Session) -> T + Send + 'static,
    ) -> T {
        let session = Arc::clone(self);
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let turn = Arc::clone(&session.workers).acquire_owned().await;
            spawn_blocking(move || {
                let _turn = turn.expect("the semaphore is never closed");
                job(&session)
            })
            .await
        }));
        match task.await.and_then(|done| done) {
            Ok(value) => value,
            Err(failed) => std::panic::resume_unwind(failed.into_panic()),
        }
    }

    /// Cuts a segment, stores what is new of it, and its leaf. `None` when it holds only zeros. Blocking.
    pub(super) fn store_segment(
        &self,
        cutter: &DiskChunker,
        segment: &[u8],
    ) -> Result<Option<BlobId>, WorkerError> {
        self.store_parts(segment, cutter.cut(segment).into_iter().map(SegmentPart::Rechunked).collect())
    }

    /// Stores what is new of a segment that was cut, and its leaf. `None` when it holds only zeros. Blocking.
    pub(super) fn store_parts(
        &self,
        segment: &[u8],
        parts: Vec<SegmentPart>,
    ) -> Result<Option<BlobId>, WorkerError> {
        let mut pieces = Vec::with_capacity(parts.len());
        for part in parts {
            pieces.push(match part {
                SegmentPart::Kept(piece) => piece,
                SegmentPart::Rechunked(PieceRange::Hole(range)) => Piece::Hole { bytes: range.len() as u32 },
                SegmentPart::Rechunked(PieceRange::Chunk(range)) => {
                    let bytes = range.len() as u32;
                    Piece::Chunk { id: self.store_blob(BlobKind::Chunk, &segment[range])?, bytes }
                }
            });
        }
        if let [Piece::Hole { .. }] = pieces[..] {
            return Ok(None);
        }
        self.store_blob(BlobKind::RecipeLeaf, &recipe::encode_leaf(&pieces)).map(Some)
    }

    /// Stores a blob unless it is stored already, and returns its id. Blocking.
    pub(super) fn store_blob(&self, kind: BlobKind, content: &[u8]) -> Result<BlobId, WorkerError> {
        let id = self.keys.id(kind, content);
        if self.claim(id)? {
            let text = blob::encode(content, self.shared.settings.compression, TAG_BYTES);
            let packer = &self.packers[PackKind::of(kind) as usize];
            let stored = packer.add(&self.keys, kind, id, content.len(), text)?;
            raise(&self.progress.stored_bytes, u64::from(stored));
            if kind == BlobKind::Chunk {
                raise(&self.progress.new_bytes, content.len() as u64);
            }
        }
        Ok(id)
    }

    /// Whether a blob is stored in a pack that is not condemned.
    pub(super) fn is_stored(&self, id: &BlobId) -> Result<bool, IndexError> {
        let index = self.shared.index.read().expect("no thread panics while holding the index");
        index.contains_outside(&self.condemned, id)
    }

    /// Whether the caller is the one to store this blob.
    fn claim(&self, id: BlobId) -> Result<bool, WorkerError> {
        let index = self.shared.index.read().map_err(|_| WorkerError::BackupEnded)?;
        if index.contains_outside(&self.condemned, &id).map_err(WorkerError::Index)? {
            return Ok(false);
        }
        // Still holding the index: a blob is at any time either claimed or in the index.
        Ok(self.claimed.lock().map_err(|_| WorkerError::BackupEnded)?.insert(id))
    }

    /// Releases the claims on blobs that a shard lists. Only then: a blob is at any time either claimed or in the index.
    pub(super) fn release_claims(&self, ids: &[BlobId]) {
        let mut claimed = self.claimed.lock().expect("no thread panics while holding the claims");
        for id in ids {
            claimed.remove(id);
        }
    }

    /// Releases all claims, where nothing is stored.
    pub(super) fn release_all_claims(&self) {
        self.claimed.lock().expect("no thread panics while holding the claims").clear();
    }

    /// Hands over the packs that are not full and ends their queue.
    pub(super) async fn finish(self: &Arc<Self>) -> Result<(), WorkerError> {
        self.work(|session| session.packers.iter().try_for_each(Packer::close)).await
    }
}
