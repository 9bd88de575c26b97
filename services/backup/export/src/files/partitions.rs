//! How a disk is divided.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use backup_repository::DiskSource;

use super::error::FilesError;
use super::probe::{FileSystem, probe};
use super::tree::{Place, blocking};
use super::window::Window;
use super::{gpt, mbr};

/// More partitions than this are not looked at: Linux makes devices of no more.
pub(super) const PARTITIONS_MAX: usize = 256;

/// A part of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, as Linux counts.
    pub number: u32,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// What the table says of it.
    pub kind: PartitionKind,
    /// What it holds.
    pub holds: FileSystem,
}

/// What a partition table says of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionKind {
    /// A type byte of the old table.
    Mbr(u8),
    /// A type and a name of GPT.
    Gpt {
        /// The type's GUID, in its usual spelling.
        type_guid: String,
        /// The name given to the partition, often empty.
        name: String,
    },
}

/// What a table says, before anybody looked at what is there. The bytes lie within the disk.
pub(super) struct Slice {
    pub(super) number: u32,
    pub(super) bytes: Range<u64>,
    pub(super) kind: PartitionKind,
}

/// Why a table cannot be used.
pub(super) enum TableError {
    Disk(io::Error),
    Damaged(String),
}

impl From<io::Error> for TableError {
    fn from(error: io::Error) -> TableError {
        TableError::Disk(error)
    }
}

impl From<TableError> for FilesError {
    fn from(error: TableError) -> FilesError {
        match error {
            TableError::Disk(error) => FilesError::Disk(error),
            TableError::Damaged(why) => FilesError::Damaged { what: "partition table", why },
        }
    }
}

/// The partitions of a disk, in the table's order. Empty where there is no table, as on a disk that is one file
/// system.
///
/// # Errors
/// When the disk cannot be read, or its table is damaged.
pub async fn partitions(disk: &Arc<dyn DiskSource>) -> Result<Vec<Partition>, FilesError> {
    let mut window = Window::new(disk, 0..disk.size_bytes());
    blocking(move || {
        let mut partitions = Vec::new();
        for Slice { number, bytes, kind } in slices(&mut window)? {
            let (offset, size_bytes) = (bytes.start, bytes.end - bytes.start);
            let whole = 0..window.size_bytes();
            window = window.narrowed(bytes);
            let holds = probe(&mut window).map_err(FilesError::Disk)?;
            window = window.narrowed(whole);
            partitions.push(Partition { number, offset, size_bytes, kind, holds });
        }
        Ok(partitions)
    })
    .await
}

/// Where a place lies on the disk that the window shows whole.
pub(super) fn range_of(window: &mut Window, place: Place) -> Result<Range<u64>, FilesError> {
    let Place::Partition(wanted) = place else { return Ok(0..window.size_bytes()) };
    let slices = slices(window)?;
    if let Some(slice) = slices.iter().find(|slice| slice.number == wanted) {
        return Ok(slice.bytes.clone());
    }
    let there: Vec<_> = slices.iter().map(|slice| slice.number.to_string()).collect();
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    Err(FilesError::NoSuchPartition { wanted, there })
}

fn slices(window: &mut Window) -> Result<Vec<Slice>, FilesError> {
    // A file system of its own leaves no room for a table, though FAT looks as if it had one.
    if probe(window).map_err(FilesError::Disk)? != FileSystem::Unknown {
        return Ok(Vec::new());
    }
    Ok(match mbr::read(window)? {
        mbr::Table::None => Vec::new(),
        mbr::Table::Partitions(slices) => slices,
        mbr::Table::Protective => gpt::read(window)?,
    })
}
