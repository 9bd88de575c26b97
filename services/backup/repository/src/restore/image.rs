//! A new image and its names.
//!
//! ```text
//!   disk.raw.partial   locked, sparse, written in any order
//!        | fsync, link under the final name (fails if that exists), unlink, fsync of the folder
//!        v
//!   disk.raw
//! ```

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::unistd::geteuid;

use super::request::FailedImageAction;
use crate::source::SourceError;

/// The image could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The path exists.
    #[error("{path} already exists")]
    Exists {
        /// The path.
        path: PathBuf,
    },
    /// Another restore is writing it.
    #[error("another restore is writing {path}")]
    RestoreRunning {
        /// The partial image.
        path: PathBuf,
    },
    /// The file at the partial image's path was not left by a restore of ours.
    #[error("{path} was not left by a restore: check what it is, and move it away")]
    NotAPartialImage {
        /// The partial image.
        path: PathBuf,
    },
    /// The target is in use.
    #[error("{path} is in use: it is mounted, part of a volume group, or open in QEMU or another restore")]
    InUse {
        /// The file or device.
        path: PathBuf,
    },
    /// Only files and block devices hold disks.
    #[error("cannot restore a disk to {path}: it is neither a file nor a block device")]
    NotADisk {
        /// What was given.
        path: PathBuf,
    },
    /// The disk does not fit.
    #[error("{path} is {has_bytes} bytes long and the disk {needs_bytes}")]
    Size {
        /// The file or device.
        path: PathBuf,
        /// Its size.
        has_bytes: u64,
        /// The size of the disk.
        needs_bytes: u64,
    },
    /// It does not read back what was written to it.
    #[error(
        "{path} does not read back at byte {at} what was written: do not use it, and check for failing hardware"
    )]
    ReadBackDiffers {
        /// The image.
        path: PathBuf,
        /// The beginning of the chunk that differs.
        at: u64,
    },
    /// QEMU could not write it for us.
    #[error("could not write {path} through QEMU")]
    QemuWrite {
        /// The image.
        path: PathBuf,
        /// The cause.
        #[source]
        source: SourceError,
    },
    /// The restore ended while a thread was at work; its own error is the one to report.
    #[error("the restore ended while {path} was written")]
    Stopped {
        /// The image.
        path: PathBuf,
    },
    /// The file system failed.
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

/// What to do with a partial image that an interrupted restore left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PartialImageAction {
    /// Continue: it is compared before it is kept.
    Continue,
    /// Start again.
    Replace,
}

/// An image being written. Dropped before [`Image::finish`], it removes what it wrote unless that is to be kept, even
/// while late writers are still at work on the nameless file.
pub(super) struct Image {
    file: File,
    partial: PathBuf,
    path: PathBuf,
    /// Whether something was left that may match in places.
    continued: bool,
    remove_on_drop: bool,
}

impl Image {
    /// Begins an image of that size. The lock ends with the process, so what an interrupted restore left can be continued.
    pub(super) fn begin(
        path: &Path,
        size_bytes: u64,
        leftover: PartialImageAction,
        unfinished: FailedImageAction,
    ) -> Result<Image, ImageError> {
        let partial = partial_path(path);
        let failed = |attempt| {
            let path = partial.clone();
            move |source| ImageError::Io { attempt, path, source }
        };
        if path.symlink_metadata().is_ok() {
            return Err(ImageError::Exists { path: path.to_owned() });
        }
        let mut file = open(&partial).map_err(failed("make"))?;
        lock(&file, &partial)?;
        if leftover == PartialImageAction::Replace && file.metadata().map_err(failed("inspect"))?.len() > 0 {
            // A new file instead of an emptied one: a server of the interrupted restore may still be closing the old one.
            std::fs::remove_file(&partial).map_err(failed("remove"))?;
            file = open(&partial).map_err(failed("make"))?;
            lock(&file, &partial)?;
        }
        let continued = file.metadata().map_err(failed("inspect"))?.len() > 0;
        file.set_len(size_bytes).map_err(failed("size"))?;
        let remove_on_drop = unfinished == FailedImageAction::Remove;
        Ok(Image { file, partial, path: path.to_owned(), continued, remove_on_drop })
    }

    /// Whether it may hold something else than zeros.
    pub(super) fn is_continued(&self) -> bool {
        self.continued
    }

    /// The name under which it is written.
    pub(super) fn partial(&self) -> &Path {
        &self.partial
    }

    /// The file once more, for threads that write. It shares the lock.
    pub(super) fn file(&self) -> Result<File, ImageError> {
        self.file.try_clone().map_err(|source| self.failed("open once more", source))
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
        self.remove_on_drop = false;
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
        if self.remove_on_drop {
            // An orphan that cannot be removed is continued by the next attempt.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// Only its owner may read what is restored, and no link leads elsewhere.
fn open(partial: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(partial)
}

fn lock(file: &File, partial: &Path) -> Result<(), ImageError> {
    let path = partial.to_owned();
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(ImageError::RestoreRunning { path }),
        Err(TryLockError::Error(source)) => return Err(ImageError::Io { attempt: "lock", path, source }),
    }
    let ours = file.metadata().map_err(|source| ImageError::Io {
        attempt: "inspect",
        path: path.clone(),
        source,
    })?;
    // Between our opening and locking, its former owner may have finished and given it its final name.
    match partial.symlink_metadata() {
        Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => {}
        _ => return Err(ImageError::RestoreRunning { path }),
    }
    // Whoever made it may read on what we write, or has another name for it.
    if !ours.is_file() || ours.uid() != geteuid().as_raw() || ours.nlink() != 1 {
        return Err(ImageError::NotAPartialImage { path });
    }
    Ok(())
}
