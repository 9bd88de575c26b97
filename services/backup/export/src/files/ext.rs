//! ext2, ext3 and ext4, through the crate `ext4-view`.

use std::error::Error;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ext4_view::{Ext4, Ext4Error, Ext4Read, FileType, Metadata};

use super::entry::{ENTRIES_MAX, Entry, EntryKind};
use super::error::FilesError;
use super::sink::{PIECE_BYTES, Sink};
use super::window::Window;

impl Ext4Read for Window {
    fn read(
        &mut self,
        start_byte: u64,
        into: &mut [u8],
    ) -> Result<(), Box<dyn Error + Send + Sync + 'static>> {
        Ok(self.read_exact_at(start_byte, into)?)
    }
}

pub(super) fn list(window: Window, path: &Path) -> Result<Vec<Entry>, FilesError> {
    let failed = |error| failed(path, error);
    let (fs, inside) = open(window, path)?;
    let follow = path.as_os_str().as_bytes().ends_with(b"/");
    let metadata = if follow { fs.metadata(inside) } else { fs.symlink_metadata(inside) }.map_err(failed)?;
    if !metadata.is_dir() {
        let name = path.file_name().unwrap_or(OsStr::new("/"));
        return Ok(vec![entry(&fs, name.as_bytes(), inside, &metadata).map_err(failed)?]);
    }
    let mut entries = Vec::new();
    for found in fs.read_dir(inside).map_err(failed)? {
        let found = found.map_err(failed)?;
        if matches!(found.file_name().as_ref(), b"." | b"..") {
            continue;
        }
        if entries.len() >= ENTRIES_MAX {
            return Err(FilesError::TooMany { path: path.display().to_string() });
        }
        let metadata = found.metadata().map_err(failed)?;
        let at = found.path();
        entries.push(entry(&fs, found.file_name().as_ref(), at.as_path(), &metadata).map_err(failed)?);
    }
    Ok(entries)
}

pub(super) fn extract(window: Window, path: &Path, sink: &Sink) -> Result<(), FilesError> {
    let failed = |error| failed(path, error);
    let (fs, inside) = open(window, path)?;
    let mut file = fs.open(inside).map_err(failed)?;
    sink.check(file.metadata().len())?;
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let mut filled = 0;
        while filled < piece.len() {
            match file.read_bytes(&mut piece[filled..]).map_err(failed)? {
                0 => break,
                read => filled += read,
            }
        }
        piece.truncate(filled);
        if filled == 0 || !sink.take(piece) {
            return Ok(());
        }
    }
}

fn open(window: Window, path: &Path) -> Result<(Ext4, ext4_view::Path<'_>), FilesError> {
    let inside = ext4_view::Path::try_from(path.as_os_str().as_bytes());
    let inside = inside.map_err(|_| FilesError::NoPath { path: path.display().to_string() })?;
    let fs = Ext4::load(Box::new(window)).map_err(|error| failed(path, error))?;
    Ok((fs, inside))
}

fn entry(fs: &Ext4, name: &[u8], at: ext4_view::Path<'_>, metadata: &Metadata) -> Result<Entry, Ext4Error> {
    let kind = match metadata.file_type() {
        FileType::Regular => EntryKind::File,
        FileType::Directory => EntryKind::Folder,
        FileType::Symlink => {
            let target = fs.read_link(at)?;
            EntryKind::Link(PathBuf::from(OsStr::from_bytes(target.as_ref())))
        }
        _ => EntryKind::Special,
    };
    Ok(Entry {
        name: OsStr::from_bytes(name).to_owned(),
        kind,
        size_bytes: metadata.len(),
        mode: Some(metadata.mode() & 0o7777),
        owner: Some((metadata.uid(), metadata.gid())),
        modified: Some(metadata.modified().seconds()),
    })
}

fn failed(path: &Path, error: Ext4Error) -> FilesError {
    let path = path.display().to_string();
    let other = |is| FilesError::WrongEntryKind { path: path.clone(), is };
    match error {
        Ext4Error::Io(error) => match error.downcast::<io::Error>() {
            // Metadata that point beyond the end are damage, not a disk that cannot be read.
            Ok(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                FilesError::Damaged { what: "file system", why: error.to_string() }
            }
            Ok(error) => FilesError::Disk(*error),
            Err(error) => FilesError::Disk(io::Error::other(error)),
        },
        Ext4Error::NotFound => FilesError::NotFound { path },
        Ext4Error::IsADirectory => other("a folder"),
        Ext4Error::NotADirectory => other("not within a folder"),
        Ext4Error::IsASpecialFile => other("a device, pipe or socket"),
        Ext4Error::TooManySymlinks => other("a link in a loop"),
        Ext4Error::Encrypted => other("encrypted"),
        Ext4Error::NotAbsolute | Ext4Error::MalformedPath | Ext4Error::PathTooLong => {
            FilesError::NoPath { path }
        }
        error => FilesError::Damaged { what: "file system", why: error.to_string() },
    }
}
