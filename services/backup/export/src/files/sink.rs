//! The way of an extracted file's bytes from the thread that reads them to the caller's writer.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::error::FilesError;

/// A file goes in pieces of this size.
pub(super) const PIECE_BYTES: usize = 1024 * 1024;

/// Where a file's bytes go.
pub(super) struct Sink {
    pieces: mpsc::Sender<Bytes>,
    bytes_max: u64,
    path: PathBuf,
}

impl Sink {
    /// Takes a file of at most `bytes_max` bytes; `path` is named in errors.
    pub(super) fn new(pieces: mpsc::Sender<Bytes>, bytes_max: u64, path: &Path) -> Sink {
        Sink { pieces, bytes_max, path: path.to_owned() }
    }

    /// Refuses a file that is too large.
    pub(super) fn check(&self, size_bytes: u64) -> Result<(), FilesError> {
        if size_bytes <= self.bytes_max {
            return Ok(());
        }
        let path = self.path.display().to_string();
        Err(FilesError::TooLarge { path, size_bytes, bytes_max: self.bytes_max })
    }

    /// Passes bytes on; `false` when the receiver is gone.
    pub(super) fn take(&self, piece: Vec<u8>) -> bool {
        self.pieces.blocking_send(piece.into()).is_ok()
    }
}
