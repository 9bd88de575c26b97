//! Folders and files, whatever file system they lie in.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_repository::DiskSource;
use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::error::FilesError;
use super::partitions::range_of;
use super::probe::{FileSystem, probe};
use super::window::{METADATA_BYTES_MAX, Window};
use super::{ext, fat};

/// An extracted file goes in pieces of this size, so many of which wait for a slow writer.
pub(super) const PIECE_BYTES: usize = 1024 * 1024;
const PIECES_WAITING_MAX: usize = 4;

/// Where a file system lies on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The disk is one file system, without a partition table.
    WholeDisk,
    /// A partition, by its number.
    Partition(u32),
}

/// One thing in a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name as it is stored: bytes, not always UTF-8.
    pub name: OsString,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes of a file; of others, what the file system says.
    pub size_bytes: u64,
    /// Permission bits (`0o7777`); FAT has none.
    pub mode: Option<u16>,
    /// Owner and group; FAT has none.
    pub owner: Option<(u32, u32)>,
    /// When it was last changed, in seconds since 1970; FAT does not say in which time zone its times are.
    pub modified: Option<i64>,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link, and where it points as it is stored.
    Link(PathBuf),
    /// A device, pipe or socket.
    Special,
}

/// Lists a folder, sorted by name. A path to anything else gives that one entry; a link is followed where the path
/// ends with a slash.
///
/// # Errors
/// When there is no such path, no file system that can be read here, or it is damaged.
pub async fn list(disk: &Arc<dyn DiskSource>, place: Place, path: &Path) -> Result<Vec<Entry>, FilesError> {
    let path = checked(path)?;
    let window = Window::new(disk, 0..disk.size_bytes());
    blocking(move || {
        let (found, window) = open(window, place)?;
        let mut entries = match found {
            FileSystem::Fat => fat::list(window, &path),
            _ => ext::list(window, &path),
        }?;
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    })
    .await
}

/// Writes a file's bytes to `writer` and returns how many they were. Links are followed within the file system; holes
/// are written as zeros.
///
/// # Errors
/// As [`list`], when it is no file or larger than `bytes_max`, or when the writer fails.
pub async fn extract(
    disk: &Arc<dyn DiskSource>,
    place: Place,
    path: &Path,
    writer: &mut (impl AsyncWrite + Unpin),
    bytes_max: u64,
) -> Result<u64, FilesError> {
    let path = checked(path)?;
    let window = Window::new(disk, 0..disk.size_bytes());
    let window = window.allow(bytes_max.saturating_mul(2).saturating_add(METADATA_BYTES_MAX));
    let (pieces, mut arriving) = mpsc::channel(PIECES_WAITING_MAX);
    let reading = spawn_blocking(move || {
        let (found, window) = open(window, place)?;
        let sink = Sink { pieces, bytes_max, path: path.clone() };
        match found {
            FileSystem::Fat => fat::extract(window, &path, &sink),
            _ => ext::extract(window, &path, &sink),
        }
    });
    let mut written = 0;
    while let Some(piece) = arriving.recv().await {
        let piece: Bytes = piece;
        writer.write_all(&piece).await.map_err(FilesError::Write)?;
        written += piece.len() as u64;
    }
    settled(reading.await)?;
    writer.flush().await.map_err(FilesError::Write)?;
    Ok(written)
}

/// Where a file's bytes go.
pub(super) struct Sink {
    pieces: mpsc::Sender<Bytes>,
    bytes_max: u64,
    path: PathBuf,
}

impl Sink {
    pub(super) fn check(&self, size_bytes: u64) -> Result<(), FilesError> {
        if size_bytes <= self.bytes_max {
            return Ok(());
        }
        let path = self.path.display().to_string();
        Err(FilesError::TooLarge { path, size_bytes, bytes_max: self.bytes_max })
    }

    /// Passes bytes on; `false` when nobody wants them any more.
    pub(super) fn take(&self, piece: Vec<u8>) -> bool {
        self.pieces.blocking_send(piece.into()).is_ok()
    }
}

fn checked(path: &Path) -> Result<PathBuf, FilesError> {
    let bytes = path.as_os_str().as_bytes();
    if !bytes.starts_with(b"/") || bytes.contains(&0) {
        return Err(FilesError::NoPath { path: path.display().to_string() });
    }
    Ok(path.to_owned())
}

/// Finds the file system, and narrows the window to it.
fn open(mut window: Window, place: Place) -> Result<(FileSystem, Window), FilesError> {
    let range = range_of(&mut window, place)?;
    let mut window = window.narrowed(range);
    match probe(&mut window).map_err(FilesError::Disk)? {
        FileSystem::Unknown => Err(FilesError::NoFileSystem),
        found if found.is_readable() => Ok((found, window)),
        found => Err(FilesError::NeedsMount { found }),
    }
}

/// Does what blocks on a thread for that.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FilesError> + Send + 'static,
) -> Result<T, FilesError> {
    settled(spawn_blocking(work).await)
}

/// The file systems' crates promise not to panic on damage. If one does, and the program is built to bear panics, that
/// is damage, too.
fn settled<T>(joined: Result<Result<T, FilesError>, tokio::task::JoinError>) -> Result<T, FilesError> {
    joined.unwrap_or_else(|error| {
        Err(FilesError::Damaged { what: "file system", why: format!("its reader failed: {error}") })
    })
}
