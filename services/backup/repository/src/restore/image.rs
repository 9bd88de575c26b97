//! The image that a restore writes.
//!
//! ```text
//!   disk.raw.partial   locked, sparse, written in any order
//!        | fsync, link under the final name (fails if that exists), unlink, fsync of the folder
//!        v
//!   disk.raw
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Something of that name is there.
    #[error("{path} exists already")]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// Another restore is writing it.
    #[error("another restore is writing {path}")]
    Busy {
        /// The partial image.
        path: PathBuf,
    },
    /// The file system said no.
    #[error("could not {attempt} {path}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The name of an image while it is being restored.
pub fn partial_path(image: &Path) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(".partial");
    PathBuf::from(name)
}

/// An image being written. Dropped before [`Image::finish`], it removes what it wrote, even while late writers are
/// still at work on the nameless file.
pub(super) struct Image {
    file: Arc<File>,
    partial: PathBuf,
    path: PathBuf,
    finished: bool,
}

/// Writes at any place of an image.
pub(super) struct ImageWriter {
    file: Arc<File>,
    partial: PathBuf,
}

impl ImageWriter {
    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), ImageError> {
        self.file.write_all_at(bytes, offset).map_err(|source| ImageError::Io {
            attempt: "write",
            path: self.partial.clone(),
            source,
        })
    }
}

impl Image {
    /// Begins an empty image of that size. The lock goes with the process, so what a dead restore left behind is
    /// taken over.
    pub(super) fn begin(path: &Path, size_bytes: u64) -> Result<Image, ImageError> {
        let partial = partial_path(path);
        let failed = |attempt| {
            let path = partial.clone();
            move |source| ImageError::Io { attempt, path, source }
        };
        if path.symlink_metadata().is_ok() {
            return Err(ImageError::Exists { path: path.to_owned() });
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&partial)
            .map_err(failed("make"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ImageError::Busy { path: partial }),
            Err(TryLockError::Error(source)) => return Err(failed("lock")(source)),
        }
        // Between our opening and locking, its former owner may have finished and given it its final name.
        let ours = file.metadata().map_err(failed("look at"))?;
        match partial.symlink_metadata() {
            Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => {}
            _ => return Err(ImageError::Busy { path: partial }),
        }
        file.set_len(0).map_err(failed("empty"))?;
        file.set_len(size_bytes).map_err(failed("size"))?;
        Ok(Image { file: Arc::new(file), partial, path: path.to_owned(), finished: false })
    }

    /// Something for a worker thread to write with.
    pub(super) fn writer(&self) -> ImageWriter {
        ImageWriter { file: Arc::clone(&self.file), partial: self.partial.clone() }
    }

    /// Puts the image on stable storage and gives it its name.
    pub(super) fn finish(mut self) -> Result<(), ImageError> {
        self.file.sync_all().map_err(|source| self.failed("sync", source))?;
        match std::fs::hard_link(&self.partial, &self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(ImageError::Exists { path: self.path.clone() });
            }
            Err(source) => return Err(self.failed("give its name to", source)),
        }
        self.finished = true;
        std::fs::remove_file(&self.partial).map_err(|source| self.failed("remove", source))?;
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|source| ImageError::Io {
            attempt: "sync the folder",
            path: folder.to_owned(),
            source,
        })
    }

    fn failed(&self, attempt: &'static str, source: io::Error) -> ImageError {
        ImageError::Io { attempt, path: self.partial.clone(), source }
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if !self.finished {
            // An orphan that cannot be removed is taken over by the next attempt.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}
