//! Decides about the segments of a disk, page by page, before any of them is read.
//!
//! ```text
//!   extents of the page ──┐
//!   the parent's leaves ──┼──> Planned, one for each segment ──┐
//!   which to check ───────┘                                    ├──> SegmentTask
//!   the parent's pieces of those to patch or check ────────────┘
//! ```

use std::collections::HashMap;
use std::ops::Range;

use tracing::warn;

use super::CopyDisksError;
use super::audit::UnchangedRangesCheck;
use super::disk::DiskCopy;
use super::patch::SegmentPatchPlan;
use super::session::Session;
use crate::format::recipe::{DiskRecipe, LEAVES_PER_PAGE, Piece};
use crate::format::snapshot::DiskRecord;
use crate::ids::BlobId;
use crate::progress::raise;
use crate::restore::{ReadError, fetch};
use crate::source::{self, Change, ExtentKind, SegmentPlan};

/// The same disk in the parent snapshot.
pub(super) struct ParentDisk {
    disk: DiskRecipe,
    pub(super) grid_offset_bytes: u32,
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
        Ok(same_segments.then_some(ParentDisk { disk, grid_offset_bytes: record.grid_offset_bytes }))
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
pub(super) struct SegmentTask {
    pub(super) range: Range<u64>,
    pub(super) work: SegmentAction,
}

pub(super) enum SegmentAction {
    /// All zeros.
    Zeros,
    /// As in the parent.
    Unchanged { leaf: Option<BlobId>, probe: Option<UnchangedRangesCheck> },
    /// Read whole.
    Read(Vec<Range<u64>>),
    /// Read in places.
    Patch { patch: SegmentPatchPlan, probe: Option<UnchangedRangesCheck> },
}

/// What is known of one segment before its pieces in the parent are looked up.
struct Planned {
    /// Its number on the disk.
    index: u64,
    plan: SegmentPlan,
    /// The parent's leaf of the same segment; `None` where it holds only zeros there, or there is no parent.
    leaf: Option<BlobId>,
    /// Whether what the dirty bitmap says of it is checked.
    audited: bool,
}

impl Planned {
    /// Whether the parent's pieces are needed to deal with it.
    fn needs_pieces(&self) -> bool {
        self.audited || matches!(self.plan, SegmentPlan::Patch { .. })
    }
}

impl DiskCopy<'_> {
    /// Asks the source about the segments of one page and decides about each.
    pub(super) async fn plan_page(&self, page: u64) -> Result<Vec<SegmentTask>, CopyDisksError> {
        let planned = self.planned(page).await?;
        let mut pieces = self.parent_pieces(&planned).await?;
        let task = |segment: Planned| {
            let range = self.shape.segment(segment.index);
            let pieces = match segment.leaf {
                Some(_) => pieces.remove(&range.start),
                None => Some(vec![Piece::Hole { bytes: (range.end - range.start) as u32 }]),
            };
            self.task(segment, range, pieces)
        };
        Ok(planned.into_iter().map(task).collect())
    }

    /// What the source and the parent say of each segment of a page.
    async fn planned(&self, page: u64) -> Result<Vec<Planned>, CopyDisksError> {
        let first = page * LEAVES_PER_PAGE as u64;
        let last = first + self.shape.leaves(page) - 1;
        let window = self.shape.segment(first).start..self.shape.segment(last).end;
        let mut extents = self.source.extents(window.clone()).await.map_err(|source| self.failed(source))?;
        let used =
            extents.iter().filter(|extent| extent.kind == ExtentKind::Data).map(|extent| extent.length);
        raise(&self.used_bytes, used.sum());
        let leaves = self.parent_leaves(page).await?;
        if leaves.is_none() {
            extents.iter_mut().for_each(|extent| extent.change = Change::Unknown);
        }
        let plans = source::plan(window.clone(), u64::from(self.shape.segment_bytes), &extents)
            .map_err(|_| self.contradiction(window.start))?;
        let leaves = leaves.unwrap_or_else(|| vec![None; plans.len()]);
        let segments = (first..).zip(plans).zip(leaves).map(|((index, plan), leaf)| Planned {
            index,
            leaf,
            audited: self.is_audited(&plan),
            plan,
        });
        Ok(segments.collect())
    }

    /// Decides about a segment. `pieces` is what it was cut into in the parent, `None` where that cannot be read.
    fn task(&self, segment: Planned, range: Range<u64>, pieces: Option<Vec<Piece>>) -> SegmentTask {
        let probe = |reads: &[Range<u64>], changed: &[Range<u64>]| match &pieces {
            Some(pieces) if segment.audited => self.probe(&range, pieces, reads, changed),
            _ => None,
        };
        let work = match segment.plan {
            SegmentPlan::Zeros => SegmentAction::Zeros,
            SegmentPlan::Unchanged(reads) => {
                SegmentAction::Unchanged { leaf: segment.leaf, probe: probe(&reads, &[]) }
            }
            SegmentPlan::Read(reads) => SegmentAction::Read(reads),
            SegmentPlan::Patch { reads, changed } => {
                let probe = probe(&reads, &changed);
                match pieces {
                    Some(pieces) => SegmentAction::Patch {
                        patch: SegmentPatchPlan {
                            nonzero_ranges: reads,
                            changed_ranges: changed,
                            parent_pieces: pieces,
                        },
                        probe,
                    },
                    None => SegmentAction::Read(reads),
                }
            }
        };
        SegmentTask { range, work }
    }

    fn is_audited(&self, plan: &SegmentPlan) -> bool {
        matches!(plan, SegmentPlan::Unchanged(reads) | SegmentPlan::Patch { reads, .. } if !reads.is_empty())
            && self.session.shared.settings.dirty_bitmap_check.selects(self.shape.segments())
    }

    /// The parent's pieces of the segments that need them, by where they begin. Damaged ones are left out.
    async fn parent_pieces(&self, planned: &[Planned]) -> Result<HashMap<u64, Vec<Piece>>, CopyDisksError> {
        let (Some(parent), Some(first)) = (&self.parent, planned.first()) else {
            return Ok(HashMap::new());
        };
        let wanted = planned.iter().map(|segment| segment.leaf.filter(|_| segment.needs_pieces()));
        let wanted: Vec<_> = wanted.collect();
        match parent.pieces(self.session, first.index, &wanted).await {
            Err(error @ (ReadError::Damaged(_) | ReadError::DamagedPack { .. })) => {
                warn!(disk = self.name, %error, "the parent's recipe is damaged: changed segments are read whole");
                Ok(HashMap::new())
            }
            read => {
                read.map_err(|source| CopyDisksError::ParentRecipe { disk: self.name.to_owned(), source })
            }
        }
    }

    /// The parent's leaves of a page, when there is a parent and all of them are stored.
    async fn parent_leaves(&self, page: u64) -> Result<Option<Vec<Option<BlobId>>>, CopyDisksError> {
        let Some(parent) = &self.parent else {
            return Ok(None);
        };
        let leaves = parent
            .page(self.session, page)
            .await
            .map_err(|source| CopyDisksError::ParentRecipe { disk: self.name.to_owned(), source })?;
        for leaf in leaves.iter().flatten() {
            if !self.session.is_stored(leaf)? {
                return Ok(None);
            }
        }
        Ok(Some(leaves))
    }
}
