//! How a disk is divided.

use std::ops::Range;
use std::sync::Arc;

use backup_repository::DiskSource;

use super::error::FilesError;
use super::probe::{FileSystem, probe};
use super::reader::blocking;
use super::table::{PartitionKind, Slice};
use super::window::Window;
use super::{gpt, mbr};

/// Where a file system lies on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileSystemLocation {
    /// The disk is one file system, without a partition table.
    WholeDisk,
    /// A partition, by its number.
    Partition(u32),
}

/// A part of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, as Linux counts.
    pub number: u32,
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Its type in the table.
    pub kind: PartitionKind,
    /// What begins at its first byte.
    pub file_system: FileSystem,
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
            partitions.push(Partition { number, offset, size_bytes, kind, file_system: holds });
        }
        Ok(partitions)
    })
    .await
}

/// What a partition or a whole disk holds.
///
/// # Errors
/// When the disk cannot be read or has no such partition.
pub async fn file_system(
    disk: &Arc<dyn DiskSource>,
    place: FileSystemLocation,
) -> Result<FileSystem, FilesError> {
    let mut window = Window::new(disk, 0..disk.size_bytes());
    blocking(move || {
        let range = range_of(&mut window, place)?;
        probe(&mut window.narrowed(range)).map_err(FilesError::Disk)
    })
    .await
}

/// Where a place lies on the disk that the window shows whole.
pub(super) fn range_of(window: &mut Window, place: FileSystemLocation) -> Result<Range<u64>, FilesError> {
    let FileSystemLocation::Partition(wanted) = place else { return Ok(0..window.size_bytes()) };
    let slices = slices(window)?;
    if let Some(slice) = slices.iter().find(|slice| slice.number == wanted) {
        return Ok(slice.bytes.clone());
    }
    let there: Vec<_> = slices.iter().map(|slice| slice.number.to_string()).collect();
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    Err(FilesError::NoSuchPartition { wanted, there })
}

fn slices(window: &mut Window) -> Result<Vec<Slice>, FilesError> {
    // A disk that is one file system has no table, though FAT's first sector resembles one.
    if probe(window).map_err(FilesError::Disk)? != FileSystem::Unknown {
        return Ok(Vec::new());
    }
    Ok(match mbr::read(window)? {
        mbr::Table::None => Vec::new(),
        mbr::Table::Partitions(slices) => slices,
        mbr::Table::Protective => gpt::read(window)?,
    })
}
