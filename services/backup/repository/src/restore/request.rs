//! What a restore is asked for, and what it tells.

use std::path::{Path, PathBuf};

use crate::source::{ImageFormat, References};

/// Where a disk goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreTarget {
    /// A new raw image, sparse. It has its name only when it is whole, see [`super::partial_path`]; what an attempt
    /// that died left under that name is compared chunk by chunk and continued.
    NewRaw {
        /// Its path, where nothing may be.
        path: PathBuf,
    },
    /// A new qcow2 image, written through `qemu-nbd`. It has its name only when it is whole; what an attempt that
    /// died left is begun anew. Its size is rounded up to 512 bytes.
    NewQcow2 {
        /// Its path, where nothing may be.
        path: PathBuf,
    },
    /// An image or block device with something on it: all of it is read, and only chunks that differ are written.
    /// What dies half way is simply run again.
    Existing {
        /// The file or device.
        path: PathBuf,
        /// Its format; `None` is what its first bytes say, and raw where they say nothing.
        format: Option<ImageFormat>,
        /// What to do when a file is not as long as the disk.
        resize: Resize,
        /// What to do about an image that refers to others.
        references: References,
    },
    /// A block device that is written without being read first.
    Device {
        /// The device, at least as large as the disk.
        path: PathBuf,
        /// What is on it.
        before: DeviceBefore,
    },
}

impl RestoreTarget {
    /// An existing image or block device of the disk's size, in the format that its first bytes tell.
    pub fn existing(path: &Path) -> RestoreTarget {
        RestoreTarget::Existing {
            path: path.to_owned(),
            format: None,
            resize: Resize::Never,
            references: References::Refuse,
        }
    }
}

/// What to do when an existing file is longer or shorter than the disk. A device may always be larger: what lies
/// behind the disk is left as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resize {
    /// Refuse.
    #[default]
    Never,
    /// Make a raw file exactly as long as the disk; what lies behind is lost.
    ToFit,
}

/// What is on a device that is written without being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceBefore {
    /// Anything: where the disk has zeros, zeros are written.
    #[default]
    Anything,
    /// Zeros and nothing else, as whoever says so knows: only data is written.
    Zeros,
}

/// What becomes of an unfinished new image when the restore fails or is cancelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Unfinished {
    /// It is removed.
    #[default]
    Remove,
    /// It stays for the next attempt, which continues it where it can.
    Keep,
}

/// Whether to read all again when it is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadBack {
    /// Every chunk was checked before it was written; the target is trusted to keep it.
    #[default]
    No,
    /// The whole target is read from stable storage and checked against the recipe.
    Yes,
}

/// A restore of one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreRequest {
    /// The disk's name in the snapshot.
    pub disk: String,
    /// Where it goes.
    pub target: RestoreTarget,
    /// What becomes of an unfinished image.
    pub unfinished: Unfinished,
    /// Whether to read all again.
    pub read_back: ReadBack,
}

impl RestoreRequest {
    /// The disk to that place, and nothing else.
    pub fn new(disk: &str, target: RestoreTarget) -> RestoreRequest {
        RestoreRequest {
            disk: disk.to_owned(),
            target,
            unfinished: Unfinished::default(),
            read_back: ReadBack::default(),
        }
    }
}

/// What a restore did. The three together are the bytes of the disk, but for holes of a target that was known to be
/// empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Bytes of chunks that were written.
    pub written_bytes: u64,
    /// Bytes that were made zero.
    pub zeroed_bytes: u64,
    /// Bytes that were there already.
    pub kept_bytes: u64,
}
