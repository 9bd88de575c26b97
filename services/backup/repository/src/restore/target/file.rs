//! A raw image in a file, or a block device.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, PosixFadviseAdvice, fallocate, fcntl, posix_fadvise};
use nix::libc;
use nix::unistd::{Whence, lseek};

use super::Target;
use crate::restore::ImageError;
use crate::restore::request::Resize;

/// Devices zero whole blocks only; no device has larger ones.
const DEVICE_BLOCK_BYTES: u64 = 4096;
/// Zeros written at one time where nothing better is supported.
const ZEROS: &[u8] = &[0; 64 * 1024];

/// What may be opened.
#[derive(Clone, Copy)]
pub(in crate::restore) enum Fit {
    /// A block device that is large enough.
    Device,
    /// The same, or a file that is as long as the disk, or is made so.
    Either(Resize),
}

pub(in crate::restore) struct FileTarget {
    file: File,
    path: PathBuf,
    device: bool,
}

impl FileTarget {
    /// A file that was created for this restore.
    pub(in crate::restore) fn fresh(file: File, path: PathBuf) -> FileTarget {
        FileTarget { file, path, device: false }
    }

    /// Opens an existing target exclusively: devices that are mounted or belong to a volume group, and images that QEMU has
    /// open, are refused.
    pub(in crate::restore) fn existing(
        path: &Path,
        size_bytes: u64,
        fit: Fit,
    ) -> Result<FileTarget, ImageError> {
        let failed = |attempt| {
            let path = path.to_owned();
            move |source| ImageError::Io { attempt, path, source }
        };
        let kind = fs::metadata(path).map_err(failed("inspect"))?.file_type();
        let file_will_do = matches!(fit, Fit::Either(_)) && kind.is_file();
        if !file_will_do && !kind.is_block_device() {
            return Err(ImageError::NotADisk { path: path.to_owned() });
        }
        // On a block device this opens it exclusively, see open(2).
        let flags = if kind.is_block_device() { libc::O_EXCL } else { 0 };
        let file = match OpenOptions::new().read(true).write(true).custom_flags(flags).open(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                return Err(ImageError::InUse { path: path.to_owned() });
            }
            opened => opened.map_err(failed("open"))?,
        };
        let opened = file.metadata().map_err(failed("inspect"))?.file_type();
        if opened != kind {
            return Err(ImageError::NotADisk { path: path.to_owned() });
        }
        let target = FileTarget { file, path: path.to_owned(), device: kind.is_block_device() };
        target.lock()?;
        target.fit(size_bytes, fit)?;
        Ok(target)
    }

    /// QEMU locks bytes of the images that it has open; a lock on all bytes conflicts with any of them, and keeps
    /// QEMU out for as long as a thread of ours may write.
    fn lock(&self) -> Result<(), ImageError> {
        let all = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&all)) {
            Ok(_) => Ok(()),
            Err(Errno::EAGAIN | Errno::EACCES) => Err(ImageError::InUse { path: self.path.clone() }),
            Err(errno) => Err(self.failed("lock", errno)),
        }
    }

    fn fit(&self, size_bytes: u64, fit: Fit) -> Result<(), ImageError> {
        let end = lseek(&self.file, 0, Whence::SeekEnd).map_err(|errno| self.failed("size", errno))?;
        let has_bytes = end.cast_unsigned();
        if has_bytes == size_bytes || (self.device && has_bytes > size_bytes) {
            return Ok(());
        }
        if self.device || !matches!(fit, Fit::Either(Resize::ToFit)) {
            return Err(ImageError::Size { path: self.path.clone(), has_bytes, needs_bytes: size_bytes });
        }
        self.file.set_len(size_bytes).map_err(|error| self.failed("size", error))
    }

    fn failed(&self, attempt: &'static str, source: impl Into<io::Error>) -> ImageError {
        ImageError::Io { attempt, path: self.path.clone(), source: source.into() }
    }

    /// Zeroes a range by fallocate: a hole where possible, else zeros without a hole. `false` when it cannot.
    fn punch(&self, range: &Range<u64>) -> Result<bool, ImageError> {
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        for how in [FallocateFlags::FALLOC_FL_PUNCH_HOLE, FallocateFlags::FALLOC_FL_ZERO_RANGE] {
            let length = (range.end - range.start).cast_signed();
            match fallocate(&self.file, how | keep, range.start.cast_signed(), length) {
                Ok(()) => return Ok(true),
                Err(Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOSYS | Errno::ENODEV) => {}
                Err(errno) => return Err(self.failed("make zeros in", errno)),
            }
        }
        Ok(false)
    }

    fn write_zeros(&self, range: Range<u64>) -> Result<(), ImageError> {
        let mut at = range.start;
        while at < range.end {
            let length = (range.end - at).min(ZEROS.len() as u64);
            self.write_at(at, &ZEROS[..length as usize])?;
            at += length;
        }
        Ok(())
    }
}

impl Target for FileTarget {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<(), ImageError> {
        self.file.read_exact_at(into, offset).map_err(|error| self.failed("read", error))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), ImageError> {
        self.file.write_all_at(bytes, offset).map_err(|error| self.failed("write", error))
    }

    fn zero(&self, range: Range<u64>) -> Result<(), ImageError> {
        if !self.device {
            return if self.punch(&range)? { Ok(()) } else { self.write_zeros(range) };
        }
        let start = range.start.next_multiple_of(DEVICE_BLOCK_BYTES).min(range.end);
        let end = (range.end - range.end % DEVICE_BLOCK_BYTES).max(start);
        self.write_zeros(range.start..start)?;
        if start < end && !self.punch(&(start..end))? {
            self.write_zeros(start..end)?;
        }
        self.write_zeros(end..range.end)
    }

    /// The file's position does not matter: all reads and writes name their offset.
    fn next_data(&self, range: Range<u64>) -> Result<u64, ImageError> {
        if self.device {
            return Ok(range.start);
        }
        match lseek(&self.file, range.start.cast_signed(), Whence::SeekData) {
            Ok(at) => Ok(at.cast_unsigned().min(range.end)),
            // Nothing but a hole follows.
            Err(Errno::ENXIO) => Ok(range.end),
            Err(errno) => Err(self.failed("find the holes of", errno)),
        }
    }

    fn sync(&self) -> Result<(), ImageError> {
        self.file.sync_all().map_err(|error| self.failed("sync", error))
    }
}

/// Drops a synced file or device from the page cache, so that it is read from stable storage.
pub(in crate::restore) fn uncache(path: &Path) -> Result<(), ImageError> {
    let dropped = File::open(path)
        .and_then(|file| Ok(posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?));
    dropped.map_err(|source| ImageError::Io {
        attempt: "drop from the page cache",
        path: path.to_owned(),
        source,
    })
}
