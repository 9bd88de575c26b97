//! FAT12, FAT16 and FAT32, through the crate `fatfs`.

use std::ffi::OsString;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use fatfs::{Dir, FileSystem, FsOptions};

use super::entry::{ENTRIES_MAX, Entry, EntryKind};
use super::error::FilesError;
use super::sink::{PIECE_BYTES, Sink};
use super::window::Window;

/// The crate needs a disk that can be written, too. It writes only when it changes something.
struct Cursor {
    window: Window,
    at: u64,
}

impl Read for Cursor {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.window.size_bytes().saturating_sub(self.at);
        let here = left.min(buffer.len() as u64) as usize;
        self.window.read_exact_at(self.at, &mut buffer[..here])?;
        self.at += here as u64;
        Ok(here)
    }
}

impl Write for Cursor {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Cursor {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.window.size_bytes().checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

pub(super) fn list(window: Window, path: &Path) -> Result<Vec<Entry>, FilesError> {
    let failed = |error| failed(path, error);
    let fs = open(window).map_err(failed)?;
    let inside = inside(path)?;
    let root = fs.root_dir();
    if let Some(file) = find(&root, inside).map_err(failed)?.filter(|found| !found.is_dir()) {
        return Ok(vec![entry(&file)]);
    }
    let folder = if inside.is_empty() { root } else { root.open_dir(inside).map_err(failed)? };
    let mut entries = Vec::new();
    for found in folder.iter() {
        let found = found.map_err(failed)?;
        if matches!(found.file_name().as_str(), "." | "..") {
            continue;
        }
        if entries.len() >= ENTRIES_MAX {
            return Err(FilesError::TooMany { path: path.display().to_string() });
        }
        entries.push(entry(&found));
    }
    Ok(entries)
}

pub(super) fn extract(window: Window, path: &Path, sink: &Sink) -> Result<(), FilesError> {
    let failed = |error| failed(path, error);
    let fs = open(window).map_err(failed)?;
    let inside = inside(path)?;
    let root = fs.root_dir();
    let found = find(&root, inside).map_err(failed)?;
    let Some(found) = found.filter(|found| !found.is_dir()) else {
        return Err(FilesError::WrongEntryKind { path: path.display().to_string(), is: "a folder" });
    };
    sink.check(found.len())?;
    let mut file = found.to_file();
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read =
            Read::by_ref(&mut file).take(PIECE_BYTES as u64).read_to_end(&mut piece).map_err(failed)?;
        if read == 0 || !sink.take(piece) {
            return Ok(());
        }
    }
}

type DirEntry<'a> = fatfs::DirEntry<'a, Cursor>;

fn open(window: Window) -> io::Result<FileSystem<Cursor>> {
    FileSystem::new(Cursor { window, at: 0 }, FsOptions::new())
}

fn inside(path: &Path) -> Result<&str, FilesError> {
    let text = path.to_str().ok_or_else(|| FilesError::NoPath { path: path.display().to_string() })?;
    Ok(text.trim_matches('/'))
}

/// The entry of a path; `None` for the root, which has none. Names are compared as FAT does, without regard to case.
fn find<'a>(root: &Dir<'a, Cursor>, inside: &str) -> io::Result<Option<DirEntry<'a>>> {
    if inside.is_empty() {
        return Ok(None);
    }
    let (parent, name) = inside.rsplit_once('/').unwrap_or(("", inside));
    let folder = if parent.is_empty() { root.clone() } else { root.open_dir(parent)? };
    for found in folder.iter() {
        let found = found?;
        let is = |other: String| other.to_uppercase() == name.to_uppercase();
        if is(found.file_name()) || is(found.short_file_name()) {
            return Ok(Some(found));
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

fn entry(found: &DirEntry<'_>) -> Entry {
    Entry {
        name: OsString::from(found.file_name()),
        kind: if found.is_dir() { EntryKind::Folder } else { EntryKind::File },
        size_bytes: found.len(),
        mode: None,
        owner: None,
        modified: None,
    }
}

fn failed(path: &Path, error: io::Error) -> FilesError {
    match error.kind() {
        io::ErrorKind::NotFound => FilesError::NotFound { path: path.display().to_string() },
        // The window's errors are passed on by the crate as they are; all others are its own.
        io::ErrorKind::Other
            if error.get_ref().is_some_and(|cause| cause.is::<backup_repository::SourceError>()) =>
        {
            FilesError::Disk(error)
        }
        _ => FilesError::Damaged { what: "file system", why: error.to_string() },
    }
}
