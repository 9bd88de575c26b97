//! What a folder holds, whatever file system it lies in.

use std::ffi::OsString;
use std::path::PathBuf;

/// A folder with more entries is refused: the listing must fit into memory.
pub const ENTRIES_MAX: usize = 100_000;

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
