//! Copies one disk: page by page, its segments many at a time, in order. What is done about each: [`super::plan`].

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::CopyDisksError;
use super::plan::{ParentDisk, SegmentAction, SegmentTask};
use super::session::Session;
use crate::chunker::{BLOCK_BYTES, Chunker, DiskChunker, phase};
use crate::format::recipe::{self, DiskRecipe, LEAVES_PER_PAGE};
use crate::format::snapshot::{DiskRecord, RecordKind};
use crate::ids::{BlobId, BlobKind};
use crate::progress::raise;
use crate::source::{DiskSource, SourceError};

pub(super) struct DiskCopy<'a> {
    pub(super) session: &'a Arc<Session>,
    pub(super) name: &'a str,
    pub(super) source: &'a dyn DiskSource,
    pub(super) chunker: DiskChunker,
    pub(super) parent: Option<ParentDisk>,
    /// Size and segments of the disk; its pages come last.
    pub(super) shape: DiskRecipe,
    /// Bytes that hold data, by the extents of the source.
    pub(super) used_bytes: AtomicU64,
}

/// Stores a disk and returns its record.
pub(super) async fn copy(
    session: &Arc<Session>,
    name: &str,
    source: &dyn DiskSource,
    parent: Option<ParentDisk>,
) -> Result<DiskRecord, CopyDisksError> {
    let chunking = session.shared.config.chunking;
    let shape = DiskRecipe {
        size_bytes: source.size_bytes(),
        segment_bytes: chunking.segment_bytes,
        pages: Vec::new(),
    };
    let phase_bytes = phase_of(session, name, source).await?;
    let cutter = DiskChunker::new(chunking, &session.keys, phase_bytes);
    // Where the grid has moved everything is cut again.
    let parent = parent.filter(|parent| parent.grid_offset_bytes == phase_bytes);
    let copy =
        DiskCopy { session, name, source, chunker: cutter, parent, shape, used_bytes: AtomicU64::new(0) };
    let pages = copy.shape.segments().div_ceil(LEAVES_PER_PAGE as u64);
    // One boxed future after the other: unboxed, the compiler cannot tell callers that copying is `Send`.
    let here = &copy;
    let leaves = futures::stream::iter(0..pages)
        .map(move |page| here.plan_page(page).boxed())
        .buffered(1)
        .map_ok(|tasks| futures::stream::iter(tasks.into_iter().map(Ok)))
        .try_flatten()
        .map_ok(|task| copy.segment(task))
        .try_buffered(session.shared.settings.segments_in_flight());
    let mut leaves = std::pin::pin!(leaves);
    let mut roots = Vec::new();
    for page in 0..pages {
        let mut page_leaves = Vec::new();
        for _ in 0..copy.shape.leaves(page) {
            page_leaves.push(leaves.try_next().await?.expect("every segment has an outcome"));
        }
        roots.push(if page_leaves.iter().all(Option::is_none) {
            None
        } else {
            Some(copy.store_recipe(BlobKind::RecipePage, recipe::encode_page(&page_leaves)).await?)
        });
    }
    let disk = DiskRecipe { pages: roots, ..copy.shape.clone() };
    let root = copy.store_recipe(BlobKind::DiskRecipe, disk.encode()).await?;
    Ok(DiskRecord {
        name: name.to_owned(),
        kind: RecordKind::Disk,
        size_bytes: disk.size_bytes,
        used_bytes: copy.used_bytes.load(Ordering::Relaxed),
        grid_offset_bytes: phase_bytes,
        root,
    })
}

/// Where the grid begins on which a disk is cut.
async fn phase_of(session: &Session, name: &str, source: &dyn DiskSource) -> Result<u32, CopyDisksError> {
    match session.shared.config.chunking.chunker() {
        Chunker::FastCdc => Ok(0),
        Chunker::AlignedCdc => {
            let length = source.size_bytes().min(BLOCK_BYTES as u64);
            let failed = |source| CopyDisksError::Source { disk: name.to_owned(), source };
            let start = source.read_at(0, length as usize).await.map_err(failed)?;
            raise(&session.progress.read_bytes, length);
            Ok(phase::of(&start))
        }
    }
}

impl DiskCopy<'_> {
    /// Deals with one segment; `None` is a segment of zeros.
    async fn segment(&self, task: SegmentTask) -> Result<Option<BlobId>, CopyDisksError> {
        let SegmentTask { range, work } = task;
        let progress = &self.session.progress;
        let leaf = match work {
            SegmentAction::Zeros => {
                raise(&progress.segments_empty, 1);
                None
            }
            SegmentAction::Unchanged { leaf, probe } => {
                self.audit(probe).await?;
                raise(&progress.segments_reused, 1);
                leaf
            }
            SegmentAction::Read(reads) => {
                let segment = self.read(&range, &reads).await?;
                raise(&progress.segments_read, 1);
                let cutter = self.chunker.clone();
                let stored = self.session.work(move |session| session.store_segment(&cutter, &segment)).await;
                stored.map_err(CopyDisksError::from)?
            }
            SegmentAction::Patch { patch, probe } => {
                self.audit(probe).await?;
                raise(&progress.segments_read, 1);
                self.patch(&range, patch).await?
            }
        };
        progress.done(range.end - range.start);
        Ok(leaf)
    }

    /// The bytes of a part of the disk, of which only `reads` may be other than zero.
    pub(super) async fn read(
        &self,
        part: &Range<u64>,
        reads: &[Range<u64>],
    ) -> Result<Bytes, CopyDisksError> {
        if let [whole] = reads
            && whole == part
        {
            return self.read_exact(whole).await;
        }
        let mut bytes = vec![0; (part.end - part.start) as usize];
        for read in reads {
            let at = (read.start - part.start) as usize;
            let found = self.read_exact(read).await?;
            bytes[at..at + found.len()].copy_from_slice(&found);
        }
        Ok(Bytes::from(bytes))
    }

    pub(super) async fn read_exact(&self, range: &Range<u64>) -> Result<Bytes, CopyDisksError> {
        let length = (range.end - range.start) as usize;
        let bytes = self.source.read_at(range.start, length).await.map_err(|source| self.failed(source))?;
        if bytes.len() != length {
            return Err(self.contradiction(range.start));
        }
        raise(&self.session.progress.read_bytes, length as u64);
        Ok(bytes)
    }

    async fn store_recipe(&self, kind: BlobKind, content: Vec<u8>) -> Result<BlobId, CopyDisksError> {
        let stored = self.session.work(move |session| session.store_blob(kind, &content)).await;
        stored.map_err(CopyDisksError::from)
    }

    pub(super) fn failed(&self, source: SourceError) -> CopyDisksError {
        CopyDisksError::Source { disk: self.name.to_owned(), source }
    }

    pub(super) fn contradiction(&self, at: u64) -> CopyDisksError {
        CopyDisksError::SourceContractViolation { disk: self.name.to_owned(), at }
    }
}
