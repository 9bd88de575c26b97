//! `NAME.map`: which disk this is an overlay of, and which blocks are present.
//!
//! ```text
//!   0      magic "LOAM-OVL"
//!   8      version, 4 bytes LE (1)
//!   12     bytes of a block, 4 LE
//!   16     bytes of the disk, 8 LE
//!   24     bytes of the id, 2 LE, and the id
//!   4064   BLAKE3 of the bytes before
//!   4096   bitmap: block n is bit n%8 of byte n/8; filled up with zeros to a multiple of 4096
//! ```
//!
//! Pages of the bitmap are written in place. Bits are only ever set, so a page torn by a crash is some map between the
//! old one and the new one, and both are true.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::bitmap::{Bitmap, PAGE_BYTES, pages};
use super::error::OverlayError;
use super::{BLOCK_BYTES, DISK_BYTES_MAX};

const MAGIC: &[u8; 8] = b"LOAM-OVL";
const VERSION: u32 = 1;
const ID_AT: usize = 26;
const HASH_AT: usize = PAGE_BYTES - blake3::OUT_LEN;
const ID_BYTES_MAX: usize = 1024;

/// An overlay that was closed just now may be finishing a last write.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
const LOCK_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// The disk that an overlay belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DiskIdentity {
    pub(super) id: String,
    pub(super) size_bytes: u64,
}

impl DiskIdentity {
    pub(super) fn new(id: &str, size_bytes: u64) -> Result<DiskIdentity, OverlayError> {
        if id.len() > ID_BYTES_MAX {
            return Err(OverlayError::IdTooLong { max: ID_BYTES_MAX });
        }
        if size_bytes > DISK_BYTES_MAX {
            return Err(OverlayError::TooLarge { size_bytes });
        }
        Ok(DiskIdentity { id: id.to_owned(), size_bytes })
    }

    fn blocks(&self) -> u64 {
        self.size_bytes.div_ceil(BLOCK_BYTES)
    }

    fn header(&self) -> [u8; PAGE_BYTES] {
        let mut header = [0; PAGE_BYTES];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
        header[16..24].copy_from_slice(&self.size_bytes.to_le_bytes());
        header[24..ID_AT].copy_from_slice(&(self.id.len() as u16).to_le_bytes());
        header[ID_AT..][..self.id.len()].copy_from_slice(self.id.as_bytes());
        let hash = blake3::hash(&header[..HASH_AT]);
        header[HASH_AT..].copy_from_slice(hash.as_bytes());
        header
    }

    fn parse(header: &[u8; PAGE_BYTES]) -> Result<DiskIdentity, &'static str> {
        if !header.starts_with(MAGIC) {
            return Err("it is not the map of an overlay");
        }
        let field =
            |at: usize| u32::from_le_bytes(*header[at..].first_chunk().expect("it lies in the header"));
        if field(8) != VERSION {
            return Err("it was made by another version");
        }
        if header[HASH_AT..] != *blake3::hash(&header[..HASH_AT]).as_bytes() {
            return Err("its header is damaged");
        }
        if u64::from(field(12)) != BLOCK_BYTES {
            return Err("its blocks have another size");
        }
        let size_bytes = u64::from_le_bytes(*header[16..].first_chunk().expect("it lies in the header"));
        let length = usize::from(u16::from_le_bytes([header[24], header[25]]));
        let id = header[ID_AT..HASH_AT].get(..length).and_then(|id| std::str::from_utf8(id).ok());
        Ok(DiskIdentity { id: id.ok_or("its header is damaged")?.to_owned(), size_bytes })
    }
}

/// The open map, locked against other processes.
#[derive(Debug)]
pub(super) struct Map {
    file: File,
    path: PathBuf,
}

impl Map {
    /// Opens the map, or creates an empty one.
    pub(super) fn open(path: &Path, identity: &DiskIdentity) -> Result<(Map, Bitmap), OverlayError> {
        let failed = |attempt| move |source| OverlayError::Io { attempt, path: path.to_owned(), source };
        if !path.try_exists().map_err(failed("find"))? {
            Map::create(path, identity).map_err(failed("make"))?;
        }
        let mut file = OpenOptions::new().read(true).write(true).open(path).map_err(failed("open"))?;
        let give_up = Instant::now() + LOCK_TIMEOUT;
        while let Err(error) = file.try_lock() {
            match error {
                fs::TryLockError::WouldBlock if Instant::now() < give_up => {
                    thread::sleep(LOCK_RETRY_INTERVAL)
                }
                fs::TryLockError::WouldBlock => return Err(OverlayError::InUse { path: path.to_owned() }),
                fs::TryLockError::Error(error) => return Err(failed("lock")(error)),
            }
        }
        let unusable = |why| OverlayError::NotAnOverlay { path: path.to_owned(), why };
        let mut header = [0; PAGE_BYTES];
        file.read_exact(&mut header).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => unusable("it is not the map of an overlay"),
            _ => failed("read")(error),
        })?;
        let found = DiskIdentity::parse(&header).map_err(unusable)?;
        if found != *identity {
            let name = |of: &DiskIdentity| format!("{} ({} bytes)", of.id, of.size_bytes);
            let (found, wanted) = (name(&found), name(identity));
            return Err(OverlayError::OtherDisk { path: path.to_owned(), found, wanted });
        }
        // The header says how much follows, and its hash that we wrote it.
        let expected = pages(identity.blocks()) * PAGE_BYTES;
        let mut bytes = Vec::with_capacity(expected + 1);
        Read::by_ref(&mut file).take(expected as u64 + 1).read_to_end(&mut bytes).map_err(failed("read"))?;
        let bitmap =
            Bitmap::from_bytes(identity.blocks(), &bytes).ok_or_else(|| unusable("its map is damaged"))?;
        Ok((Map { file, path: path.to_owned() }, bitmap))
    }

    /// It is there whole or not at all, and never takes the place of another.
    fn create(path: &Path, identity: &DiskIdentity) -> io::Result<()> {
        let mut new = path.as_os_str().to_owned();
        new.push(format!(".{}.new", std::process::id()));
        let new = PathBuf::from(new);
        // Of a process with the same number that died here.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let made = (|| {
            file.write_all_at(&identity.header(), 0)?;
            file.set_len(((1 + pages(identity.blocks())) * PAGE_BYTES) as u64)?;
            file.sync_all()?;
            match fs::hard_link(&new, path) {
                // Another process was first; then its map is the one.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            }
        })();
        fs::remove_file(&new)?;
        made?;
        sync_folder_of(path)
    }

    /// Writes pages of the bitmap and waits until they are on disk.
    pub(super) fn write(&self, pages: &[(usize, Vec<u8>)]) -> Result<(), OverlayError> {
        let failed = |source| OverlayError::Io { attempt: "write", path: self.path.clone(), source };
        for (number, page) in pages {
            let at = (1 + number) * PAGE_BYTES;
            self.file.write_all_at(page, at as u64).map_err(failed)?;
        }
        if !pages.is_empty() {
            self.file.sync_data().map_err(failed)?;
        }
        Ok(())
    }
}

/// A new name is on disk only when its folder is.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_written_and_any_changed_bit_is_seen() {
        let identity = DiskIdentity::new("01J/vda", 12_345_678).unwrap();
        let header = identity.header();
        assert_eq!(DiskIdentity::parse(&header), Ok(identity));
        for at in 0..PAGE_BYTES {
            let mut damaged = header;
            damaged[at] ^= 4;
            DiskIdentity::parse(&damaged).unwrap_err();
        }
    }
}
