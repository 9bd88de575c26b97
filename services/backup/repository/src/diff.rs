//! Differences of two snapshots, found in their recipes without reading any data.

use std::ops::Range;
use std::sync::Arc;

use tracing::instrument;

use crate::format::recipe::{DiskRecipe, LEAVES_PER_PAGE};
use crate::format::snapshot::{DiskRecord, RecordKind, Snapshot};
use crate::repository::Repository;
use crate::restore::{ReadError, fetch};
use crate::shared::Shared;

/// One disk or stream in two snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskDiff {
    /// The name of the disk or stream.
    pub name: String,
    /// Its size in the first snapshot, if it is there.
    pub size_bytes_before: Option<u64>,
    /// Its size in the second, if it is there.
    pub size_bytes_after: Option<u64>,
    /// Ranges of whole segments that differ, joined where they touch. A stream, and a disk that is only in one of
    /// both, differs from end to end or not at all; so does nearly all of one whose aligned cuts moved in between, as
    /// when it was partitioned again ([`DiskRecord::grid_offset_bytes`]).
    pub ranges: Vec<Range<u64>>,
}

impl DiskDiff {
    /// Bytes in segments that differ.
    pub fn bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }
}

impl Repository {
    /// Compares the disks of two snapshots by name. Reads only recipes that differ.
    ///
    /// # Errors
    /// When the store fails or a recipe is damaged.
    #[instrument(name = "repository.diff", skip_all, fields(before = %before.id, after = %after.id))]
    pub async fn diff(&self, before: &Snapshot, after: &Snapshot) -> Result<Vec<DiskDiff>, ReadError> {
        self.refresh().await?;
        let (before, after) = (&before.contents.disks, &after.contents.disks);
        let only_before = before.iter().filter(|old| after.iter().all(|new| new.name != old.name));
        let mut diffs: Vec<_> = only_before.map(|old| whole(Some(old), None)).collect();
        for new in after {
            let old = before.iter().find(|old| old.name == new.name && old.kind == new.kind);
            diffs.push(match old {
                Some(old) if old.root == new.root => {
                    DiskDiff { ranges: Vec::new(), ..whole(Some(old), Some(new)) }
                }
                Some(old) if new.kind == RecordKind::Disk => {
                    let ranges = changed(&self.shared, old, new).await?;
                    DiskDiff { ranges, ..whole(Some(old), Some(new)) }
                }
                old => whole(old, Some(new)),
            });
        }
        Ok(diffs)
    }
}

fn whole(old: Option<&DiskRecord>, new: Option<&DiskRecord>) -> DiskDiff {
    let name = old.or(new).map(|record| record.name.clone()).unwrap_or_default();
    let (size_bytes_before, size_bytes_after) =
        (old.map(|record| record.size_bytes), new.map(|record| record.size_bytes));
    let size = size_bytes_before.max(size_bytes_after).unwrap_or(0);
    let ranges = end_to_end(size);
    DiskDiff { name, size_bytes_before, size_bytes_after, ranges }
}

fn end_to_end(size_bytes: u64) -> Vec<Range<u64>> {
    (size_bytes > 0).then_some(0..size_bytes).into_iter().collect()
}

/// The segments of a disk whose leaves differ, joined where they touch; what only one of both has, differs.
pub(crate) async fn changed(
    shared: &Arc<Shared>,
    old: &DiskRecord,
    new: &DiskRecord,
) -> Result<Vec<Range<u64>>, ReadError> {
    let (before, after) = (fetch::disk(shared, old).await?, fetch::disk(shared, new).await?);
    let (shorter, longer) =
        if old.size_bytes <= new.size_bytes { (&before, &after) } else { (&after, &before) };
    if before.segment_bytes != after.segment_bytes {
        return Ok(end_to_end(longer.size_bytes));
    }
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let mut push = |range: Range<u64>| match ranges.last_mut() {
        Some(last) if last.end == range.start => last.end = range.end,
        _ => ranges.push(range),
    };
    for page in 0..longer.pages.len() {
        let number = page as u64;
        let first = (page * LEAVES_PER_PAGE) as u64;
        let same_shape = before.pages.len() > page
            && after.pages.len() > page
            && before.leaves(number) == after.leaves(number);
        if same_shape && before.pages[page] == after.pages[page] && before.size_bytes == after.size_bytes {
            continue;
        }
        let (left, right) = (leaves(shared, &before, number).await?, leaves(shared, &after, number).await?);
        for index in 0..longer.leaves(number) {
            let (segment, at) = (longer.segment(first + index), index as usize);
            let in_both = first + index < shorter.segments() && shorter.segment(first + index) == segment;
            if !in_both || left.get(at) != right.get(at) {
                push(segment);
            }
        }
    }
    Ok(ranges)
}

async fn leaves(
    shared: &Arc<Shared>,
    disk: &DiskRecipe,
    page: u64,
) -> Result<Vec<Option<crate::ids::BlobId>>, ReadError> {
    if page < disk.pages.len() as u64 { fetch::page(shared, disk, page).await } else { Ok(Vec::new()) }
}
