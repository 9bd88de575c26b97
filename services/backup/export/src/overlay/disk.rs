//! The overlay as a disk that is read and written.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use backup_repository::source::{Change, Extent};
use backup_repository::{DiskSource, RawFile, SourceError};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use tokio::task::spawn_blocking;

use super::BLOCK_BYTES;
use super::demand::GuestRequests;
use super::error::OverlayError;
use super::local::{Content, OverlayFile, ZeroWriteMode};
use super::map::DiskIdentity;

/// A read that lies partly here and partly below has so many parts in flight.
const PARTS_AT_ONCE: usize = 4;

/// Where an overlay lies and to which disk it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlaySettings {
    /// The file that takes what is written; its map lies beside it, with `.map` added to the name.
    pub path: PathBuf,
    /// Names the disk below, as a snapshot and a disk of it do. An overlay is never used for another.
    pub id: String,
}

/// How much of the disk has become the overlay's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillProgress {
    /// Blocks of 64 KiB that need no source any more.
    pub present_blocks: u64,
    /// All blocks of the disk.
    pub total_blocks: u64,
}

impl FillProgress {
    /// Whether the source is needed no more.
    pub fn is_complete(&self) -> bool {
        self.present_blocks == self.total_blocks
    }
}

/// A writable disk over one that is only read.
pub struct Overlay {
    pub(super) overlay_file: Arc<OverlayFile>,
    /// The same file as `local` writes, for reading.
    file: RawFile,
    pub(super) source: Arc<dyn DiskSource>,
    pub(super) guest_requests: GuestRequests,
}

impl Overlay {
    /// Opens an overlay, or makes an empty one where there is none.
    ///
    /// # Errors
    /// When it belongs to another disk, is in use, is damaged, or cannot be read or written.
    pub async fn open(
        settings: &OverlaySettings,
        source: Arc<dyn DiskSource>,
    ) -> Result<Arc<Overlay>, OverlayError> {
        let identity = DiskIdentity::new(&settings.id, source.size_bytes())?;
        let path = settings.path.clone();
        let local = blocking(move || OverlayFile::open(&path, &identity)).await?;
        let file = RawFile::open(local.path())?;
        Ok(Arc::new(Overlay {
            overlay_file: Arc::new(local),
            file,
            source,
            guest_requests: GuestRequests::new(),
        }))
    }

    /// The file that takes what is written. When all is present, it is the disk as a raw image.
    pub fn path(&self) -> &Path {
        self.overlay_file.path()
    }

    /// How much of the disk is here.
    pub fn presence(&self) -> FillProgress {
        let bitmap = &self.overlay_file.bitmap;
        FillProgress { present_blocks: bitmap.present(), total_blocks: bitmap.blocks() }
    }

    /// Writes bytes. After a crash they are there if a [`flush`](Overlay::flush) came between.
    ///
    /// # Errors
    /// When they lie beyond the end, the source of a block that is written in part cannot be read, or the overlay
    /// cannot be written.
    pub async fn write_at(&self, offset: u64, bytes: Bytes) -> Result<(), OverlayError> {
        self.put(offset, bytes.len() as u64, Content::Bytes(bytes)).await
    }

    /// Writes zeros, however many, without keeping them in memory.
    ///
    /// # Errors
    /// As [`write_at`](Overlay::write_at).
    pub async fn write_zeroes(
        &self,
        offset: u64,
        length: u64,
        holes: ZeroWriteMode,
    ) -> Result<(), OverlayError> {
        self.put(offset, length, Content::Zeros(holes)).await
    }

    /// Declares that what is there is not needed: whole blocks read as zeros afterwards, parts of blocks stay as they
    /// are.
    ///
    /// # Errors
    /// As [`write_at`](Overlay::write_at).
    pub async fn trim(&self, offset: u64, length: u64) -> Result<(), OverlayError> {
        let end = self.checked_end(offset, length)?;
        let first = offset.next_multiple_of(BLOCK_BYTES);
        let last = if end == self.size_bytes() { end } else { end - end % BLOCK_BYTES };
        if first < last {
            self.put(first, last - first, Content::Zeros(ZeroWriteMode::Sparse)).await?;
        }
        Ok(())
    }

    /// Waits until everything that was written before is safely on disk.
    ///
    /// # Errors
    /// When it is not; then the overlay refuses every further write.
    pub async fn flush(&self) -> Result<(), OverlayError> {
        let local = Arc::clone(&self.overlay_file);
        blocking(move || local.sync()).await
    }

    fn checked_end(&self, offset: u64, length: u64) -> Result<u64, OverlayError> {
        let end = offset.checked_add(length).filter(|end| *end <= self.size_bytes());
        end.ok_or(OverlayError::OutOfRange { offset, length })
    }

    async fn put(&self, offset: u64, length: u64, content: Content) -> Result<(), OverlayError> {
        let end = self.checked_end(offset, length)?;
        let _asked = self.guest_requests.enter();
        let mut at = offset;
        while at < end {
            let block = at / BLOCK_BYTES;
            let whole_end =
                if end == self.size_bytes() { end.div_ceil(BLOCK_BYTES) } else { end / BLOCK_BYTES };
            let (present, run_end) = self.overlay_file.bitmap.run(block..end.div_ceil(BLOCK_BYTES));
            let whole = at.is_multiple_of(BLOCK_BYTES) && block < whole_end;
            let blocks = block..if present {
                run_end
            } else if whole {
                run_end.min(whole_end)
            } else {
                block + 1
            };
            let to = end.min(self.overlay_file.bytes_of(&blocks).end);
            let content = match &content {
                Content::Bytes(bytes) => {
                    Content::Bytes(bytes.slice((at - offset) as usize..(to - offset) as usize))
                }
                zeros => zeros.clone(),
            };
            let local = Arc::clone(&self.overlay_file);
            // A write that has begun is finished even when its caller is gone.
            if present {
                blocking(move || local.overwrite(at, to - at, &content)).await?;
            } else if whole {
                blocking(move || local.write_blocks(blocks, &content)).await?;
            } else {
                let below = self.overlay_file.bytes_of(&blocks);
                let below = self.read_below(below.start, (below.end - below.start) as usize).await?;
                blocking(move || local.write_part(block, below, at, to - at, &content)).await?;
            }
            at = to;
        }
        Ok(())
    }

    /// Reads from the source, which must give exactly the requested bytes.
    pub(super) async fn read_below(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        let bytes = self.source.read_at(offset, length).await?;
        if bytes.len() != length {
            let why = format!("a read of {length} bytes gave {}", bytes.len());
            return Err(SourceError::Protocol { what: "the disk below the overlay".into(), why });
        }
        Ok(bytes)
    }

    /// Parts of a range that are present or missing as a whole.
    fn parts(&self, range: &Range<u64>) -> Vec<(bool, Range<u64>)> {
        let mut parts = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let blocks = at / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
            let (present, run_end) = self.overlay_file.bitmap.run(blocks);
            let end = range.end.min(run_end * BLOCK_BYTES);
            parts.push((present, at..end));
            at = end;
        }
        parts
    }

    async fn read_part(&self, present: bool, part: Range<u64>) -> Result<Bytes, SourceError> {
        let length = (part.end - part.start) as usize;
        match present {
            true => self.file.read_at(part.start, length).await,
            false => self.read_below(part.start, length).await,
        }
    }
}

impl fmt::Debug for Overlay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let presence = self.presence();
        f.debug_struct("Overlay")
            .field("path", &self.path())
            .field("presence", &presence)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl DiskSource for Overlay {
    fn size_bytes(&self) -> u64 {
        self.source.size_bytes()
    }

    async fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        let mut extents = Vec::new();
        for (present, part) in self.parts(&range) {
            let found = match present {
                true => self.file.extents(part).await?,
                false => self.source.extents(part).await?,
            };
            // What the source knows of changes is not about this disk.
            extents.extend(found.into_iter().map(|extent| Extent { change: Change::Unknown, ..extent }));
        }
        Ok(extents)
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        let _asked = self.guest_requests.enter();
        let parts = self.parts(&(offset..offset + length as u64));
        if let [(present, part)] = &parts[..] {
            return self.read_part(*present, part.clone()).await;
        }
        let reads = parts.into_iter().map(|(present, part)| self.read_part(present, part));
        futures::stream::iter(reads.collect::<Vec<_>>())
            .buffered(PARTS_AT_ONCE)
            .try_fold(BytesMut::with_capacity(length), async |mut whole, part| {
                whole.extend_from_slice(&part);
                Ok(whole)
            })
            .await
            .map(BytesMut::freeze)
    }
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(work).await.expect("writing a file does not panic")
}
