//! A raw image in a sparse file, or a block device.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use tokio::task::spawn_blocking;

use super::{Change, DiskSource, Extent, ExtentKind, SourceError};

/// Files end at any byte, block devices report theirs by seeking.
#[derive(Debug)]
pub struct RawFile {
    file: Arc<File>,
    path: PathBuf,
    size_bytes: u64,
    /// Block devices have no holes.
    sparse: bool,
}

impl RawFile {
    /// Opens an image read-only.
    ///
    /// # Errors
    /// When it cannot be opened or is neither a file nor a block device.
    pub fn open(path: &Path) -> Result<RawFile, SourceError> {
        let failed = |source| SourceError::Io { attempt: "open", what: path.display().to_string(), source };
        let file = File::open(path).map_err(failed)?;
        let kind = file.metadata().map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(failed(io::Error::other("it is neither a file nor a block device")));
        }
        let end = lseek(&file, 0, Whence::SeekEnd).map_err(|errno| failed(errno.into()))?;
        Ok(RawFile {
            file: Arc::new(file),
            path: path.to_owned(),
            size_bytes: end.cast_unsigned(),
            sparse: kind.is_file(),
        })
    }

    fn failed(&self, attempt: &'static str, source: io::Error) -> SourceError {
        SourceError::Io { attempt, what: self.path.display().to_string(), source }
    }
}

#[async_trait]
impl DiskSource for RawFile {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    async fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        if !self.sparse {
            let length = range.end - range.start;
            return Ok(vec![Extent { length, kind: ExtentKind::Data, change: Change::Unknown }]);
        }
        let file = Arc::clone(&self.file);
        spawn_blocking(move || holes(&file, range))
            .await
            .expect("seeking does not panic")
            .map_err(|source| self.failed("find the holes of", source))
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        let file = Arc::clone(&self.file);
        spawn_blocking(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, offset).map(|()| Bytes::from(bytes))
        })
        .await
        .expect("reading a file does not panic")
        .map_err(|source| self.failed("read", source))
    }
}

/// The file's position does not matter: all reads name their offset.
fn holes(file: &File, range: Range<u64>) -> io::Result<Vec<Extent>> {
    let seek = |from: u64, whence| match lseek(file, from.cast_signed(), whence) {
        Ok(at) => Ok(at.cast_unsigned().min(range.end)),
        // Nothing of that kind follows.
        Err(Errno::ENXIO) => Ok(range.end),
        Err(errno) => Err(io::Error::from(errno)),
    };
    let mut extents = Vec::new();
    let mut push = |length, kind| {
        if length > 0 {
            extents.push(Extent { length, kind, change: Change::Unknown });
        }
    };
    let mut at = range.start;
    while at < range.end {
        let data = seek(at, Whence::SeekData)?;
        push(data - at, ExtentKind::Zero);
        if data == range.end {
            break;
        }
        let hole = seek(data, Whence::SeekHole)?;
        push(hole - data, ExtentKind::Data);
        at = hole;
    }
    Ok(extents)
}
