//! What the readers of both kinds of partition table give back.

use std::io;
use std::ops::Range;

use super::error::FilesError;

/// More partitions than this are not looked at: Linux makes devices of no more.
pub(super) const PARTITIONS_MAX: usize = 256;

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
