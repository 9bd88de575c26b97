//! Extents of a source, and the plan that a backup makes of them.

use std::ops::Range;

/// What a range of a disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// Bytes that must be read.
    Data,
    /// Zeros, known without reading.
    Zero,
}

/// Whether a range changed since the parent snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The source keeps no dirty bitmap.
    Unknown,
    /// Something in it was written.
    Dirty,
    /// Nothing in it was written.
    Clean,
}

/// One range of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its length in bytes.
    pub length: u64,
    /// Data or zeros.
    pub kind: ExtentKind,
    /// Whether it changed.
    pub change: Change,
}

/// Data ranges closer than this are read in one request: a hole reads as zeros, and a request costs more.
const GAP_BYTES_MAX: u64 = 64 * 1024;

/// A segment of which more than one part in so many changed is read whole: there is little to save.
const PATCH_PART: u64 = 2;

/// What to do about one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SegmentPlan {
    /// All zeros.
    Zeros,
    /// Nothing changed since the parent; should it be read for an audit, these are the ranges, all else is zero.
    Unchanged(Vec<Range<u64>>),
    /// Read these ranges, all else is zero.
    Read(Vec<Range<u64>>),
    /// Read what is needed to cut the changed ranges again.
    Patch {
        /// What may be other than zero, as above.
        reads: Vec<Range<u64>>,
        /// What changed.
        changed: Vec<Range<u64>>,
    },
}

/// The extents of a window did not cover it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IncompleteExtents;

/// Plans every segment of a window. `window.start` is the start of a segment.
pub(crate) fn plan(
    window: Range<u64>,
    segment_bytes: u64,
    extents: &[Extent],
) -> Result<Vec<SegmentPlan>, IncompleteExtents> {
    let mut plans = Vec::new();
    let mut extents = extents.iter().copied();
    let mut current = None;
    let mut at = window.start;
    while at < window.end {
        let end = (at + segment_bytes).min(window.end);
        let segment = end - at;
        let mut changed: Vec<Range<u64>> = Vec::new();
        let mut reads: Vec<Range<u64>> = Vec::new();
        while at < end {
            let extent = match current.take() {
                Some(extent) => extent,
                None => extents.next().ok_or(IncompleteExtents)?,
            };
            let Extent { length, kind, change } = extent;
            let here = length.min(end - at);
            if change != Change::Clean {
                extend(&mut changed, at..at + here, 0);
            }
            if kind == ExtentKind::Data {
                extend(&mut reads, at..at + here, GAP_BYTES_MAX);
            }
            at += here;
            if length > here {
                current = Some(Extent { length: length - here, kind, change });
            }
        }
        let changed_bytes = changed.iter().map(|range| range.end - range.start).sum::<u64>();
        plans.push(if changed.is_empty() {
            SegmentPlan::Unchanged(reads)
        } else if reads.is_empty() {
            SegmentPlan::Zeros
        } else if changed_bytes >= segment / PATCH_PART {
            SegmentPlan::Read(reads)
        } else {
            SegmentPlan::Patch { reads, changed }
        });
    }
    if current.is_some() || extents.any(|extent| extent.length > 0) {
        Err(IncompleteExtents)
    } else {
        Ok(plans)
    }
}

/// Adds a range to a list, or joins it with the last where the gap between is no more than `gap`.
fn extend(ranges: &mut Vec<Range<u64>>, range: Range<u64>, gap: u64) {
    match ranges.last_mut() {
        _ if range.is_empty() => {}
        Some(last) if range.start - last.end <= gap => last.end = range.end,
        _ => ranges.push(range),
    }
}
