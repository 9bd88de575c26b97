//! Files of a disk, without mounting it and without being root: lists partitions and folders, extracts files.
//!
//! ```text
//!   DiskSource ──blocks──> Window (cache, bounds) ──> partition tables ──> probe: which file system?
//!                                  |                                         |        |        '─ others: named,
//!                                  |                                       ext2/3/4   FAT          "use a mount"
//!                                  '── a part of the disk ──────────────────┴──────────┘
//! ```
//!
//! Promises: nothing is written, to the disk or beside the writer that was given; whatever the disk holds, answers and
//! memory are bounded and damage is an error; a symbolic link is shown as what it is, and where a path leads through
//! one it stays within the file system. A file system that was not unmounted is read with its journal taken into
//! account, as the kernel would after replaying it (ext3, ext4).
//!
//! Reading is done on a blocking thread, because the file systems' crates (`ext4-view`, `fatfs`) are not async. Some
//! damage makes them panic: [`report_reader_panics`] says what becomes of that.
//! It deliberately does not know XFS, btrfs, NTFS, LVM or LUKS beyond their names: [`mount`](crate::mount) gives those
//! to the kernel.

mod entry;
mod error;
mod ext;
mod fat;
mod gpt;
mod mbr;
mod partitions;
mod probe;
mod reader;
mod sink;
mod table;
mod tree;
mod window;

pub use entry::{ENTRIES_MAX, Entry, EntryKind};
pub use error::FilesError;
pub use partitions::{FileSystemLocation, Partition, file_system, partitions};
pub use probe::FileSystem;
pub use reader::report_reader_panics;
pub use table::PartitionKind;
pub use tree::{extract, list};
