//! Folders and files, whatever file system they lie in.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_repository::DiskSource;
use bytes::Bytes;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::entry::Entry;
use super::error::FilesError;
use super::partitions::{FileSystemLocation, range_of};
use super::probe::{FileSystem, probe};
use super::reader::blocking;
use super::sink::Sink;
use super::window::{METADATA_BYTES_MAX, Window};
use super::{ext, fat};

/// Pieces of an extracted file that wait for a slow writer.
const PIECES_WAITING_MAX: usize = 4;

/// Lists a folder, sorted by name. A path to anything else gives that one entry; a link is followed where the path
/// ends with a slash.
///
/// # Errors
/// When there is no such path, no file system that can be read here, or it is damaged.
pub async fn list(
    disk: &Arc<dyn DiskSource>,
    place: FileSystemLocation,
    path: &Path,
) -> Result<Vec<Entry>, FilesError> {
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
    place: FileSystemLocation,
    path: &Path,
    writer: &mut (impl AsyncWrite + Unpin),
    bytes_max: u64,
) -> Result<u64, FilesError> {
    let path = checked(path)?;
    let window = Window::new(disk, 0..disk.size_bytes());
    let window = window.allow(bytes_max.saturating_mul(2).saturating_add(METADATA_BYTES_MAX));
    let (pieces, mut arriving) = mpsc::channel(PIECES_WAITING_MAX);
    let reading = blocking(move || {
        let (found, window) = open(window, place)?;
        let sink = Sink::new(pieces, bytes_max, &path);
        match found {
            FileSystem::Fat => fat::extract(window, &path, &sink),
            _ => ext::extract(window, &path, &sink),
        }
    });
    let writing = async {
        let mut written = 0;
        while let Some(piece) = arriving.recv().await {
            let piece: Bytes = piece;
            writer.write_all(&piece).await.map_err(FilesError::Write)?;
            written += piece.len() as u64;
        }
        Ok(written)
    };
    let ((), written) = tokio::try_join!(reading, writing)?;
    writer.flush().await.map_err(FilesError::Write)?;
    Ok(written)
}

fn checked(path: &Path) -> Result<PathBuf, FilesError> {
    let bytes = path.as_os_str().as_bytes();
    if !bytes.starts_with(b"/") || bytes.contains(&0) {
        return Err(FilesError::NoPath { path: path.display().to_string() });
    }
    Ok(path.to_owned())
}

/// Finds the file system, and narrows the window to it.
fn open(mut window: Window, place: FileSystemLocation) -> Result<(FileSystem, Window), FilesError> {
    let range = range_of(&mut window, place)?;
    let mut window = window.narrowed(range);
    match probe(&mut window).map_err(FilesError::Disk)? {
        FileSystem::Unknown => Err(FilesError::NoFileSystem),
        found if found.is_readable() => Ok((found, window)),
        found => Err(FilesError::NeedsMount { found }),
    }
}
