//! What the readers of both kinds of partition table give back.

use std::io;
use std::ops::Range;

use super::error::FilesError;

/// A table with more partitions is refused: Linux makes devices of no more.
pub(super) const PARTITIONS_MAX: usize = 256;

/// The type of a partition in its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartitionKind {
    /// The type byte of an MBR's entry.
    Mbr(u8),
    /// A type and a name of GPT.
    Gpt {
        /// The type's GUID, in its usual spelling.
        type_guid: String,
        /// The name given to the partition, often empty.
        name: String,
    },
}

/// An entry of a table, before its partition is read. The bytes lie within the disk.
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
