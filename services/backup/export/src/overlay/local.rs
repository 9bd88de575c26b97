//! The overlay's own files, and the order in which they are written. Everything here blocks the thread.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

use super::BLOCK_BYTES;
use super::bitmap::Bitmap;
use super::claims::BlockLocks;
use super::error::OverlayError;
use super::map::{DiskIdentity, Map, sync_folder_of};

/// Where a file system cannot make holes, zeros are written in pieces of this size.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Whether zeros may be holes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroWriteMode {
    /// They take no room.
    Sparse,
    /// Room is kept for what will be written there.
    Allocated,
}

/// What is put at a place.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Bytes(Bytes),
    Zeros(ZeroWriteMode),
}

#[derive(Debug)]
pub(super) struct OverlayFile {
    data: File,
    path: PathBuf,
    size_bytes: u64,
    map: Map,
    pub(super) bitmap: Bitmap,
    claims: BlockLocks,
    /// Held while data and map are synced, so that one checkpoint follows the other.
    checkpoint: Mutex<()>,
    not_synced: AtomicBool,
}

impl OverlayFile {
    pub(super) fn open(path: &Path, identity: &DiskIdentity) -> Result<OverlayFile, OverlayError> {
        let failed = |attempt| move |source| OverlayError::Io { attempt, path: path.to_owned(), source };
        let mut map_path = path.as_os_str().to_owned();
        map_path.push(".map");
        let map_path = PathBuf::from(map_path);
        let exists = |path: &Path| path.try_exists().map_err(failed("find"));
        if exists(path)? && !exists(&map_path)? {
            let why = "a file is there that has no map beside it";
            return Err(OverlayError::NotAnOverlay { path: path.to_owned(), why });
        }
        let (map, bitmap) = Map::open(&map_path, identity)?;
        let fresh = bitmap.present() == 0;
        let mut options = OpenOptions::new();
        // Where blocks should be present, a new and empty file would pass for zeros.
        options.read(true).write(true).create(fresh).mode(0o600);
        let data = options.open(path).map_err(failed("open"))?;
        let length = data.metadata().map_err(failed("read the size of"))?.len();
        if length != identity.size_bytes {
            if !fresh || length != 0 {
                return Err(OverlayError::NotAnOverlay {
                    path: path.to_owned(),
                    why: "it has another size than its disk",
                });
            }
            data.set_len(identity.size_bytes).map_err(failed("size"))?;
            data.sync_all().map_err(failed("sync"))?;
            sync_folder_of(path).map_err(failed("sync the folder of"))?;
        }
        Ok(OverlayFile {
            data,
            path: path.to_owned(),
            size_bytes: identity.size_bytes,
            map,
            bitmap,
            claims: BlockLocks::default(),
            checkpoint: Mutex::new(()),
            not_synced: AtomicBool::new(false),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The bytes of these blocks: the last one ends with the disk.
    pub(super) fn bytes_of(&self, blocks: &Range<u64>) -> Range<u64> {
        blocks.start * BLOCK_BYTES..(blocks.end * BLOCK_BYTES).min(self.size_bytes)
    }

    /// Overwrites what is present already.
    pub(super) fn overwrite(&self, offset: u64, length: u64, content: &Content) -> Result<(), OverlayError> {
        self.check()?;
        self.put(offset, length, content)
    }

    /// Gives whole blocks their content, whether they are present or not.
    pub(super) fn write_blocks(&self, blocks: Range<u64>, content: &Content) -> Result<(), OverlayError> {
        self.check()?;
        let _claim = self.claims.take(blocks.clone());
        let bytes = self.bytes_of(&blocks);
        self.put(bytes.start, bytes.end - bytes.start, content)?;
        self.bitmap.set(blocks);
        Ok(())
    }

    /// Writes a part of one block, which is `below` where it is missing still.
    pub(super) fn write_part(
        &self,
        block: u64,
        below: Bytes,
        offset: u64,
        length: u64,
        content: &Content,
    ) -> Result<(), OverlayError> {
        self.check()?;
        let _claim = self.claims.take(block..block + 1);
        if self.bitmap.is_set(block) {
            return self.put(offset, length, content);
        }
        let mut whole = Vec::from(below);
        let part = (offset % BLOCK_BYTES) as usize..;
        let part = &mut whole[part][..length as usize];
        match content {
            Content::Bytes(bytes) => part.copy_from_slice(bytes),
            Content::Zeros(_) => part.fill(0),
        }
        self.put(block * BLOCK_BYTES, whole.len() as u64, &Content::Bytes(whole.into()))?;
        self.bitmap.set(block..block + 1);
        Ok(())
    }

    /// Gives those of the blocks their content from below that are missing still.
    pub(super) fn fill(&self, blocks: Range<u64>, below: &Content) -> Result<(), OverlayError> {
        self.check()?;
        let _claim = self.claims.take(blocks.clone());
        let start = blocks.start * BLOCK_BYTES;
        let mut at = blocks.start;
        while at < blocks.end {
            let (present, end) = self.bitmap.run(at..blocks.end);
            if !present {
                let bytes = self.bytes_of(&(at..end));
                let content = match below {
                    Content::Bytes(all) => Content::Bytes(
                        all.slice((bytes.start - start) as usize..(bytes.end - start) as usize),
                    ),
                    zeros => zeros.clone(),
                };
                self.put(bytes.start, bytes.end - bytes.start, &content)?;
                self.bitmap.set(at..end);
            }
            at = end;
        }
        Ok(())
    }

    /// After this, all that was written before survives a crash: first the data is synced, then the map.
    pub(super) fn sync(&self) -> Result<(), OverlayError> {
        let _turn = self.checkpoint.lock().expect("a checkpoint does not panic");
        self.check()?;
        let touched = self.bitmap.take_touched();
        let synced = self.data.sync_data().map_err(|source| self.failed("sync", source));
        let synced = synced.and_then(|()| self.map.write(&touched));
        if synced.is_err() {
            self.not_synced.store(true, Ordering::Release);
        }
        synced
    }

    fn check(&self) -> Result<(), OverlayError> {
        if self.not_synced.load(Ordering::Acquire) {
            return Err(OverlayError::NotSynced { path: self.path.clone() });
        }
        Ok(())
    }

    fn failed(&self, attempt: &'static str, source: io::Error) -> OverlayError {
        OverlayError::Io { attempt, path: self.path.clone(), source }
    }

    fn put(&self, offset: u64, length: u64, content: &Content) -> Result<(), OverlayError> {
        match content {
            Content::Bytes(bytes) => {
                self.data.write_all_at(bytes, offset).map_err(|source| self.failed("write", source))
            }
            Content::Zeros(holes) => {
                self.zero(offset, length, *holes).map_err(|source| self.failed("write zeros to", source))
            }
        }
    }

    fn zero(&self, offset: u64, length: u64, holes: ZeroWriteMode) -> io::Result<()> {
        if length == 0 {
            return Ok(());
        }
        let allocate = |flags| fallocate(&self.data, flags, offset.cast_signed(), length.cast_signed());
        let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let punched = allocate(keep | FallocateFlags::FALLOC_FL_PUNCH_HOLE);
        match punched.and_then(|()| if holes == ZeroWriteMode::Allocated { allocate(keep) } else { Ok(()) }) {
            Err(Errno::EOPNOTSUPP) => {}
            done => return Ok(done?),
        }
        let mut at = offset;
        let end = offset + length;
        while at < end {
            let here = (end - at).min(ZEROS.len() as u64);
            self.data.write_all_at(&ZEROS[..here as usize], at)?;
            at += here;
        }
        Ok(())
    }
}
