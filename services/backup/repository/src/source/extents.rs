//! What a source says about its bytes, and what a backup makes of it.

use std::ops::Range;

/// What lies in a stretch of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentKind {
    /// Bytes that must be read.
    Data,
    /// Zeros, known without reading.
    Zero,
}

/// Whether a stretch changed since the parent snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The source keeps no map of changes.
    Unknown,
    /// Something in it was written.
    Dirty,
    /// Nothing in it was written.
    Clean,
}

/// One stretch of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Its length in bytes.
    pub length: u64,
    /// What lies there.
    pub kind: ExtentKind,
    /// Whether it changed.
    pub change: Change,
}

/// Data stretches closer than this are read in one request: a hole reads as zeros, and a request costs more.
const GAP_BYTES_MAX: u64 = 64 * 1024;

/// What to do about one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    /// All zeros.
    Empty,
    /// Nothing changed since the parent; should it be read all the same, these are the ranges, all else is zero.
    Unchanged(Vec<Range<u64>>),
    /// Read these ranges, all else is zero.
    Read(Vec<Range<u64>>),
}

/// The extents of a window did not cover it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DoNotCover;

/// Plans every segment of a window. `window.start` is the start of a segment.
pub(crate) fn plan(
    window: Range<u64>,
    segment_bytes: u64,
    extents: &[Extent],
) -> Result<Vec<Plan>, DoNotCover> {
    let mut plans = Vec::new();
    let mut extents = extents.iter().copied();
    let mut current = None;
    let mut at = window.start;
    while at < window.end {
        let end = (at + segment_bytes).min(window.end);
        let mut clean = true;
        let mut reads: Vec<Range<u64>> = Vec::new();
        while at < end {
            let extent = match current.take() {
                Some(extent) => extent,
                None => extents.next().ok_or(DoNotCover)?,
            };
            let Extent { length, kind, change } = extent;
            let here = length.min(end - at);
            clean &= change == Change::Clean;
            if kind == ExtentKind::Data && here > 0 {
                match reads.last_mut() {
                    Some(last) if at - last.end <= GAP_BYTES_MAX => last.end = at + here,
                    _ => reads.push(at..at + here),
                }
            }
            at += here;
            if length > here {
                current = Some(Extent { length: length - here, kind, change });
            }
        }
        plans.push(match (clean, reads.is_empty()) {
            (true, _) => Plan::Unchanged(reads),
            (false, true) => Plan::Empty,
            (false, false) => Plan::Read(reads),
        });
    }
    if current.is_some() || extents.any(|extent| extent.length > 0) { Err(DoNotCover) } else { Ok(plans) }
}
