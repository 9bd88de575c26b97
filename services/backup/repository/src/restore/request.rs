//! The request for a restore, and its report.

use std::path::{Path, PathBuf};

use crate::source::{ImageFormat, ImageReferencePolicy};

/// Where a disk goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoreTarget {
    /// A new raw image, sparse. It has its name only when it is whole, see [`super::partial_path`]; what an
    /// interrupted attempt left there is compared chunk by chunk and continued.
    NewRaw {
        /// Its path, where nothing may be.
        path: PathBuf,
    },
    /// A new qcow2 image, written through `qemu-nbd`. It has its name only when it is whole; what an interrupted
    /// attempt left is replaced. Its size is rounded up to 512 bytes.
    NewQcow2 {
        /// Its path, where nothing may be.
        path: PathBuf,
    },
    /// An image or block device with something on it: all of it is read, and only chunks that differ are written.
    /// An interrupted restore is simply run again.
    Existing {
        /// The file or device.
        path: PathBuf,
        /// Its format; `None` detects it by its first bytes, raw where they are unknown.
        format: Option<ImageFormat>,
        /// What to do when a file is not as long as the disk.
        resize: Resize,
        /// What to do about an image that refers to others.
        references: ImageReferencePolicy,
    },
    /// A block device that is written without being read first.
    OverwriteDevice {
        /// The device, at least as large as the disk.
        path: PathBuf,
        /// What is on it.
        before: DeviceContent,
    },
}

impl RestoreTarget {
    /// An existing image or block device of the disk's size, in the format that its first bytes show.
    pub fn existing(path: &Path) -> RestoreTarget {
        RestoreTarget::Existing {
            path: path.to_owned(),
            format: None,
            resize: Resize::Never,
            references: ImageReferencePolicy::Refuse,
        }
    }
}

/// What to do when an existing file is longer or shorter than the disk. A device may always be larger:
/// bytes behind the disk are not changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resize {
    /// Refuse.
    #[default]
    Never,
    /// Make a raw file exactly as long as the disk; bytes behind it are lost.
    ToFit,
}

/// What is on a device that is written without being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceContent {
    /// Anything: where the disk has zeros, zeros are written.
    #[default]
    Unknown,
    /// Zeros and nothing else, which the caller must know: only data is written.
    Zeros,
}

/// What to do with an unfinished new image when the restore fails or is cancelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailedImageAction {
    /// It is removed.
    #[default]
    Remove,
    /// It stays for the next attempt, which continues it where it can.
    Keep,
}

/// Whether to read the target back when it is written.
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
    /// The image or device to write.
    pub target: RestoreTarget,
    /// What becomes of an unfinished image.
    pub on_failure: FailedImageAction,
    /// Whether to read all again.
    pub read_back: ReadBack,
}

impl RestoreRequest {
    /// The disk to that target, with default options.
    pub fn new(disk: &str, target: RestoreTarget) -> RestoreRequest {
        RestoreRequest {
            disk: disk.to_owned(),
            target,
            on_failure: FailedImageAction::default(),
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
    /// Bytes that already matched.
    pub kept_bytes: u64,
}
