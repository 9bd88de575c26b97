//! What a target already has of one segment.

use super::ImageError;
use super::plan::BlobRef;
use super::request::RestoreReport;
use super::target::Target;
use crate::chunker::is_zero;
use crate::format::recipe::Piece;
use crate::ids::{BlobId, BlobKind};
use crate::keys::Keys;

/// Holes are compared in steps of this: only steps that are not all zeros are written.
const HOLE_STEP_BYTES: u64 = 64 * 1024;

/// What is known of a target before it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TargetContent {
    /// It reads as zeros everywhere.
    Zeros,
    /// Nothing, and it is not to be read.
    Unknown,
    /// Nothing; it is read, and what matches is kept.
    UnknownReadable,
}

/// What is left to do about a segment.
#[derive(Default)]
pub(super) struct SegmentDiff {
    /// Chunks to be written, and where.
    pub(super) chunks_to_write: Vec<(BlobRef, u64)>,
    pub(super) report: RestoreReport,
    /// Bytes of holes in targets that were known to be zero.
    pub(super) skipped_bytes: u64,
}

/// Compares one segment, and zeroes at once what should be zero. Hashes: not for an async thread.
pub(super) fn compare(
    target: &dyn Target,
    keys: &Keys,
    before: TargetContent,
    start: u64,
    pieces: &[Piece],
) -> Result<SegmentDiff, ImageError> {
    let mut compare = SegmentDiff::default();
    let mut buffer = Vec::new();
    let mut at = start;
    for piece in pieces {
        let bytes = u64::from(piece.bytes());
        match (piece, before) {
            (Piece::Chunk { id, .. }, TargetContent::UnknownReadable)
                if holds(target, keys, at, (id, bytes), &mut buffer)? =>
            {
                compare.report.kept_bytes += bytes;
            }
            (Piece::Chunk { id, bytes }, _) => {
                compare.chunks_to_write.push((BlobRef::chunk(*id, *bytes), at))
            }
            (Piece::Hole { .. }, TargetContent::Zeros) => compare.skipped_bytes += bytes,
            (Piece::Hole { .. }, TargetContent::Unknown) => {
                target.zero(at..at + bytes)?;
                compare.report.zeroed_bytes += bytes;
            }
            (Piece::Hole { .. }, TargetContent::UnknownReadable) => {
                let zeroed = each_nonzero(target, at, bytes, &mut buffer, &mut |range| target.zero(range))?;
                compare.report.zeroed_bytes += zeroed;
                compare.report.kept_bytes += bytes - zeroed;
            }
        }
        at += bytes;
    }
    Ok(compare)
}

/// Where a written segment differs from its recipe.
pub(super) fn first_difference(
    target: &dyn Target,
    keys: &Keys,
    start: u64,
    pieces: &[Piece],
) -> Result<Option<u64>, ImageError> {
    let mut buffer = Vec::new();
    let mut at = start;
    for piece in pieces {
        let bytes = u64::from(piece.bytes());
        let right = match piece {
            Piece::Chunk { id, .. } => holds(target, keys, at, (id, bytes), &mut buffer)?,
            Piece::Hole { .. } => each_nonzero(target, at, bytes, &mut buffer, &mut |_| Ok(()))? == 0,
        };
        if !right {
            return Ok(Some(at));
        }
        at += bytes;
    }
    Ok(None)
}

/// Whether the target holds the chunk at its offset.
fn holds(
    target: &dyn Target,
    keys: &Keys,
    at: u64,
    (id, bytes): (&BlobId, u64),
    buffer: &mut Vec<u8>,
) -> Result<bool, ImageError> {
    buffer.resize(bytes as usize, 0);
    target.read_at(at, buffer)?;
    Ok(keys.id(BlobKind::Chunk, buffer) == *id)
}

/// Calls `each` for every range of a hole that is not zero; returns how many bytes these were.
fn each_nonzero(
    target: &dyn Target,
    start: u64,
    bytes: u64,
    buffer: &mut Vec<u8>,
    each: &mut dyn FnMut(std::ops::Range<u64>) -> Result<(), ImageError>,
) -> Result<u64, ImageError> {
    let end = start + bytes;
    let mut nonzero = 0;
    let mut at = start;
    loop {
        at = target.next_data(at..end)?;
        if at >= end {
            return Ok(nonzero);
        }
        let length = HOLE_STEP_BYTES.min(end - at);
        buffer.resize(length as usize, 0);
        target.read_at(at, buffer)?;
        if !is_zero(buffer) {
            each(at..at + length)?;
            nonzero += length;
        }
        at += length;
    }
}
