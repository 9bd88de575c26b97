//! Fills packs of one kind.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::damage::Damage;
use crate::format::blob::BLOB_BYTES_MAX;
use crate::format::pack::{Directory, NewPackParams, PackKind, PackWriter};
use crate::ids::{BlobId, BlobKind};
use crate::index::IndexError;
use crate::keys::Keys;
use crate::settings::PACK_BYTES_TARGET;

/// Room beyond the target for the last blob, the directory and the footer, so that a pack never moves in memory.
const PACK_SLACK_BYTES: usize = BLOB_BYTES_MAX + 512 * 1024;

/// A pack ready to be stored. Holds its permit until it is dropped.
pub(super) struct FinishedPack {
    pub(super) object_bytes: Bytes,
    pub(super) directory: Directory,
    pub(super) permit: OwnedSemaphorePermit,
}

/// A worker could not go on.
#[derive(Debug)]
pub(super) enum WorkerError {
    /// The backup ended while it was at work; the cause is reported elsewhere.
    BackupEnded,
    /// The index could not be read.
    Index(IndexError),
    /// A pack could not be encrypted.
    Keys(Damage),
}

struct OpenPack {
    writer: PackWriter,
    permit: OwnedSemaphorePermit,
}

pub(super) struct Packer {
    kind: PackKind,
    permits: Arc<Semaphore>,
    state: Mutex<State>,
}

struct State {
    open: Option<OpenPack>,
    /// Gone when the packer is closed.
    finished: Option<mpsc::Sender<FinishedPack>>,
}

impl Packer {
    pub(super) fn new(
        kind: PackKind,
        permits: Arc<Semaphore>,
        finished: mpsc::Sender<FinishedPack>,
    ) -> Packer {
        Packer { kind, permits, state: Mutex::new(State { open: None, finished: Some(finished) }) }
    }

    /// Encrypts an encoded blob into the open pack and hands the pack over when it is full. Blocks while all pack
    /// permits are in use: for worker threads only. Returns the bytes that the blob takes.
    pub(super) fn add(
        &self,
        keys: &Keys,
        kind: BlobKind,
        id: BlobId,
        raw_bytes: usize,
        text: Vec<u8>,
    ) -> Result<u32, WorkerError> {
        let mut state = self.state.lock().map_err(|_| WorkerError::BackupEnded)?;
        let pack = match &mut state.open {
            Some(pack) => pack,
            empty => {
                let permit = Arc::clone(&self.permits).acquire_owned();
                let permit = Handle::current().block_on(permit).map_err(|_| WorkerError::BackupEnded)?;
                let (seed, room) = (NewPackParams::generate(), PACK_BYTES_TARGET + PACK_SLACK_BYTES);
                let writer = PackWriter::new(keys, self.kind, &seed, room).map_err(WorkerError::Keys)?;
                empty.insert(OpenPack { writer, permit })
            }
        };
        let encrypted_bytes = pack.writer.add(kind, id, raw_bytes, text);
        if pack.writer.len() >= PACK_BYTES_TARGET {
            state.hand_over()?;
        }
        Ok(encrypted_bytes)
    }

    /// Hands over the open pack, however little is in it, and closes the queue.
    pub(super) fn close(&self) -> Result<(), WorkerError> {
        let mut state = self.state.lock().map_err(|_| WorkerError::BackupEnded)?;
        state.hand_over()?;
        state.finished = None;
        Ok(())
    }
}

impl State {
    fn hand_over(&mut self) -> Result<(), WorkerError> {
        let Some(OpenPack { writer, permit }) = self.open.take() else {
            return Ok(());
        };
        let (object, directory) = writer.finish();
        let pack = FinishedPack { object_bytes: Bytes::from(object), directory, permit };
        // There is room for as many packs as there are permits, so this never waits.
        self.finished
            .as_ref()
            .ok_or(WorkerError::BackupEnded)?
            .try_send(pack)
            .map_err(|_| WorkerError::BackupEnded)
    }
}
