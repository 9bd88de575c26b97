//! What can go wrong while stored content is read or restored.

use std::ops::Range;

use super::ImageError;
use crate::damage::Damage;
use crate::source::SourceError;
use crate::store::StoreError;
use crate::{IndexError, WriteOnly};

/// Stored content could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// What is stored is not what was stored.
    #[error("stored content is damaged")]
    Damaged(#[from] Damage),
    /// A pack is damaged.
    #[error("pack {pack} is damaged")]
    DamagedPack {
        /// The pack's name.
        pack: String,
        /// What is wrong with it.
        #[source]
        source: Damage,
    },
    /// A write-only key cannot read.
    #[error(transparent)]
    WriteOnly(WriteOnly),
    /// The index could not be loaded.
    #[error("could not load the index")]
    Index(#[from] IndexError),
    /// The store failed.
    #[error("could not read from the store")]
    Store(#[from] StoreError),
}

impl ReadError {
    /// The error for damage met in a pack.
    pub(crate) fn of(damage: Damage, pack: impl FnOnce() -> String) -> ReadError {
        match damage {
            Damage::WriteOnlyKey(write_only) => ReadError::WriteOnly(write_only),
            source => ReadError::DamagedPack { pack: pack(), source },
        }
    }
}

/// A disk could not be restored. No new image of that name was made; an existing target may hold a part.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The snapshot has no such disk.
    #[error("the snapshot has no disk {disk}")]
    NoSuchDisk {
        /// What was asked for.
        disk: String,
    },
    /// It is a stream, which has no random access.
    #[error("{stream} is a stream and not a disk: restore it to a file or to stdout")]
    NotADisk {
        /// What was asked for.
        stream: String,
    },
    /// The repository could not be read.
    #[error("could not read the disk from the repository")]
    Read(#[from] ReadError),
    /// The image could not be written.
    #[error("could not write the image")]
    Image(#[from] ImageError),
    /// The disk is not that long.
    #[error("the disk has no bytes {}..{}: it is {size_bytes} bytes long", range.start, range.end)]
    Range {
        /// What was asked for.
        range: Range<u64>,
        /// The disk's size.
        size_bytes: u64,
    },
    /// A part of the disk could not be read for a stream.
    #[error("could not read the disk from the repository")]
    Source(#[source] SourceError),
    /// The writer failed.
    #[error("could not write to the stream")]
    WriteStream(#[source] std::io::Error),
    /// It was cancelled.
    #[error("the restore was cancelled")]
    Cancelled,
}
