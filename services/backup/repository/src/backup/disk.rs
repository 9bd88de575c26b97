//! Copies one disk: page by page, its segments many at a time, in order.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt};
use tracing::warn;

use super::CopyError;
use super::audit::Probe;
use super::patch::Patch;
use super::session::Session;
use crate::chunker::{BLOCK_BYTES, Chunker, Cutter, phase};
use crate::format::blob::{BlobId, BlobKind};
use crate::format::recipe::{self, Disk, LEAVES_PER_PAGE, Piece};
use crate::format::snapshot::{DiskRecord, Shape};
use crate::progress::raise;
use crate::restore::{ReadError, fetch};
use crate::source::{Change, DiskSource, ExtentKind, Plan, plan};

/// The same disk in the parent snapshot.
pub(super) struct ParentDisk {
    disk: Disk,
    phase_bytes: u32,
}

impl ParentDisk {
    /// The parent's disk when its segments are the same stretches as ours, else `None`.
    pub(super) async fn load(
        session: &Session,
        record: &DiskRecord,
        size_bytes: u64,
    ) -> Result<Option<ParentDisk>, ReadError> {
        if record.size_bytes != size_bytes {
            return Ok(None);
        }
        let disk = fetch::disk(&session.shared, record).await?;
        let same_segments = disk.segment_bytes == session.shared.config.chunking.segment_bytes;
        Ok(same_segments.then_some(ParentDisk { disk, phase_bytes: record.phase_bytes }))
    }

    async fn page(&self, session: &Session, page: u64) -> Result<Vec<Option<BlobId>>, ReadError> {
        fetch::page(&session.shared, &self.disk, page).await
    }

    /// The pieces of some segments, by where these begin; `first` is the number of the first leaf's segment.
    async fn pieces(
        &self,
        session: &Session,
        first: u64,
        leaves: &[Option<BlobId>],
    ) -> Result<HashMap<u64, Vec<Piece>>, ReadError> {
        let found = fetch::leaves(&session.shared, &self.disk, first, leaves).await?;
        Ok(found.into_iter().map(|(segment, pieces)| (segment.start, pieces)).collect())
    }
}

/// One segment and what to do about it.
struct Task {
    range: Range<u64>,
    work: Work,
}

enum Work {
    /// All zeros.
    Empty,
    /// As in the parent.
    Unchanged { leaf: Option<BlobId>, probe: Option<Probe> },
    /// Read whole.
    Read(Vec<Range<u64>>),
    /// Read in places.
    Patch { patch: Patch, probe: Option<Probe> },
}

pub(super) struct Copy<'a> {
    pub(super) session: &'a Arc<Session>,
    pub(super) name: &'a str,
    source: &'a dyn DiskSource,
    pub(super) cutter: Cutter,
    parent: Option<ParentDisk>,
    /// The shape of the disk; its pages come last.
    shape: Disk,
    /// What the source says of it that holds data.
    used_bytes: AtomicU64,
}

/// Stores a disk and returns its record.
pub(super) async fn copy(
    session: &Arc<Session>,
    name: &str,
    source: &dyn DiskSource,
    parent: Option<ParentDisk>,
) -> Result<DiskRecord, CopyError> {
    let chunking = session.shared.config.chunking;
    let shape =
        Disk { size_bytes: source.size_bytes(), segment_bytes: chunking.segment_bytes, pages: Vec::new() };
    let phase_bytes = phase_of(session, name, source).await?;
    let cutter = Cutter::new(chunking, &session.keys, phase_bytes);
    // Where the grid has moved all is cut anew.
    let parent = parent.filter(|parent| parent.phase_bytes == phase_bytes);
    let copy = Copy { session, name, source, cutter, parent, shape, used_bytes: AtomicU64::new(0) };
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
            Some(copy.store_recipe(BlobKind::Page, recipe::encode_page(&page_leaves)).await?)
        });
    }
    let disk = Disk { pages: roots, ..copy.shape.clone() };
    let root = copy.store_recipe(BlobKind::Disk, disk.encode()).await?;
    Ok(DiskRecord {
        name: name.to_owned(),
        shape: Shape::Disk,
        size_bytes: disk.size_bytes,
        used_bytes: copy.used_bytes.load(Ordering::Relaxed),
        phase_bytes,
        root,
    })
}

/// Where the grid begins on which a disk is cut.
async fn phase_of(session: &Session, name: &str, source: &dyn DiskSource) -> Result<u32, CopyError> {
    match session.shared.config.chunking.chunker() {
        Chunker::FastCdc => Ok(0),
        Chunker::Aligned => {
            let length = source.size_bytes().min(BLOCK_BYTES as u64);
            let failed = |source| CopyError::Source { disk: name.to_owned(), source };
            let start = source.read_at(0, length as usize).await.map_err(failed)?;
            raise(&session.progress.read_bytes, length);
            Ok(phase::of(&start))
        }
    }
}

impl Copy<'_> {
    /// Asks the source about the segments of one page and decides about each.
    async fn plan_page(&self, page: u64) -> Result<Vec<Task>, CopyError> {
        let first = page * LEAVES_PER_PAGE as u64;
        let last = first + self.shape.leaves(page) - 1;
        let window = self.shape.segment(first).start..self.shape.segment(last).end;
        let mut extents = self.source.extents(window.clone()).await.map_err(|source| self.failed(source))?;
        let used =
            extents.iter().filter(|extent| extent.kind == ExtentKind::Data).map(|extent| extent.length);
        raise(&self.used_bytes, used.sum());
        let parent_leaves = self.parent_leaves(page).await?;
        if parent_leaves.is_none() {
            extents.iter_mut().for_each(|extent| extent.change = Change::Unknown);
        }
        let plans = plan(window.clone(), u64::from(self.shape.segment_bytes), &extents)
            .map_err(|_| self.contradiction(window.start))?;
        let leaves = parent_leaves.unwrap_or_else(|| vec![None; plans.len()]);
        let audited: Vec<bool> = plans.iter().map(|plan| self.is_audited(plan)).collect();
        let mut pieces = self.parent_pieces(first, &leaves, &plans, &audited).await?;
        let tasks = plans.into_iter().zip(leaves).zip(audited).zip(first..);
        let tasks = tasks.map(|(((plan, leaf), audited), index)| {
            let range = self.shape.segment(index);
            let hole = || Some(vec![Piece::Hole { bytes: (range.end - range.start) as u32 }]);
            let pieces = leaf.map_or_else(hole, |_| pieces.remove(&range.start));
            let probe = |reads: &[Range<u64>], changed: &[Range<u64>]| {
                pieces
                    .as_ref()
                    .filter(|_| audited)
                    .and_then(|pieces| self.probe(&range, pieces, reads, changed))
            };
            let work = match plan {
                Plan::Empty => Work::Empty,
                Plan::Unchanged(reads) => Work::Unchanged { leaf, probe: probe(&reads, &[]) },
                Plan::Read(reads) => Work::Read(reads),
                Plan::Patch { reads, changed } => {
                    let probe = probe(&reads, &changed);
                    match pieces {
                        Some(pieces) => Work::Patch { patch: Patch { reads, changed, pieces }, probe },
                        None => Work::Read(reads),
                    }
                }
            };
            Task { range, work }
        });
        Ok(tasks.collect())
    }

    fn is_audited(&self, plan: &Plan) -> bool {
        matches!(plan, Plan::Unchanged(reads) | Plan::Patch { reads, .. } if !reads.is_empty())
            && self.session.shared.settings.audit.draws(self.shape.segments())
    }

    /// The parent's pieces of the segments that are to be patched or audited, by where they begin. What cannot be read
    /// of them is left out.
    async fn parent_pieces(
        &self,
        first: u64,
        leaves: &[Option<BlobId>],
        plans: &[Plan],
        audited: &[bool],
    ) -> Result<HashMap<u64, Vec<Piece>>, CopyError> {
        let Some(parent) = &self.parent else {
            return Ok(HashMap::new());
        };
        let wanted =
            plans.iter().zip(audited).map(|(plan, audited)| *audited || matches!(plan, Plan::Patch { .. }));
        let wanted: Vec<_> =
            leaves.iter().zip(wanted).map(|(leaf, wanted)| leaf.filter(|_| wanted)).collect();
        match parent.pieces(self.session, first, &wanted).await {
            Err(error @ (ReadError::Damaged(_) | ReadError::Pack { .. })) => {
                warn!(disk = self.name, %error, "the parent's recipe is damaged: changed segments are read whole");
                Ok(HashMap::new())
            }
            read => read.map_err(|source| CopyError::ParentRecipe { disk: self.name.to_owned(), source }),
        }
    }

    /// The parent's leaves of a page, when there is a parent and all of them are stored.
    async fn parent_leaves(&self, page: u64) -> Result<Option<Vec<Option<BlobId>>>, CopyError> {
        let Some(parent) = &self.parent else {
            return Ok(None);
        };
        let leaves = parent
            .page(self.session, page)
            .await
            .map_err(|source| CopyError::ParentRecipe { disk: self.name.to_owned(), source })?;
        for leaf in leaves.iter().flatten() {
            if !self.session.is_stored(leaf)? {
                return Ok(None);
            }
        }
        Ok(Some(leaves))
    }

    /// Deals with one segment; `None` is a segment of zeros.
    async fn segment(&self, task: Task) -> Result<Option<BlobId>, CopyError> {
        let Task { range, work } = task;
        let progress = &self.session.progress;
        let leaf = match work {
            Work::Empty => {
                raise(&progress.segments_empty, 1);
                None
            }
            Work::Unchanged { leaf, probe } => {
                self.audit(probe).await?;
                raise(&progress.segments_reused, 1);
                leaf
            }
            Work::Read(reads) => {
                let segment = self.read(&range, &reads).await?;
                raise(&progress.segments_read, 1);
                let cutter = self.cutter.clone();
                let stored = self.session.work(move |session| session.store_segment(&cutter, &segment)).await;
                stored.map_err(CopyError::from)?
            }
            Work::Patch { patch, probe } => {
                self.audit(probe).await?;
                raise(&progress.segments_read, 1);
                self.patch(&range, patch).await?
            }
        };
        progress.done(range.end - range.start);
        Ok(leaf)
    }

    /// The bytes of a part of the disk, of which only `reads` may be other than zero.
    pub(super) async fn read(&self, part: &Range<u64>, reads: &[Range<u64>]) -> Result<Bytes, CopyError> {
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

    pub(super) async fn read_exact(&self, range: &Range<u64>) -> Result<Bytes, CopyError> {
        let length = (range.end - range.start) as usize;
        let bytes = self.source.read_at(range.start, length).await.map_err(|source| self.failed(source))?;
        if bytes.len() != length {
            return Err(self.contradiction(range.start));
        }
        raise(&self.session.progress.read_bytes, length as u64);
        Ok(bytes)
    }

    async fn store_recipe(&self, kind: BlobKind, content: Vec<u8>) -> Result<BlobId, CopyError> {
        let stored = self.session.work(move |session| session.store_blob(kind, &content)).await;
        stored.map_err(CopyError::from)
    }

    fn failed(&self, source: crate::source::SourceError) -> CopyError {
        CopyError::Source { disk: self.name.to_owned(), source }
    }

    fn contradiction(&self, at: u64) -> CopyError {
        CopyError::Contradiction { disk: self.name.to_owned(), at }
    }
}
