//! Checks dirty bitmaps: something that a map calls unchanged is read anyway and compared.
//!
//! A map misses what another program wrote, as when an image was opened while its machine was off. No backup by that map
//! would ever store it.

use std::ops::Range;

use super::CopyDisksError;
use super::disk::DiskCopy;
use super::patch::both;
use crate::chunker::is_zero;
use crate::format::recipe::Piece;
use crate::ids::{BlobId, BlobKind};
use crate::progress::raise;
use crate::random::random;
use crate::settings::DirtyBitmapCheck;

/// Of a hole no more than this is read.
const HOLE_BYTES_MAX: u64 = 64 * 1024;

/// What to compare of one segment: parts of the disk that do not overlap any change.
pub(super) struct UnchangedRangesCheck(Vec<Part>);

struct Part {
    range: Range<u64>,
    /// What of it may be other than zero.
    reads: Vec<Range<u64>>,
    /// The chunk that it should be, or `None` for zeros.
    expected: Option<BlobId>,
}

impl DiskCopy<'_> {
    /// What to compare of a segment, given its pieces in the parent.
    pub(super) fn probe(
        &self,
        segment: &Range<u64>,
        pieces: &[Piece],
        reads: &[Range<u64>],
        changed: &[Range<u64>],
    ) -> Option<UnchangedRangesCheck> {
        let mut at = segment.start;
        let parts = pieces.iter().map(|piece| {
            let range = at..at + u64::from(piece.bytes());
            at = range.end;
            match piece {
                Piece::Chunk { id, .. } => (range, Some(*id)),
                Piece::Hole { .. } => (range, None),
            }
        });
        let parts = parts.filter(|(range, _)| both([range.clone()].into_iter(), changed).is_empty());
        let mut parts: Vec<_> = parts
            .map(|(range, expected)| Part {
                reads: both([range.clone()].into_iter(), reads),
                range,
                expected,
            })
            .filter(|part| part.expected.is_some() || !part.reads.is_empty())
            .collect();
        if self.session.shared.settings.dirty_bitmap_check == DirtyBitmapCheck::Sample && !parts.is_empty() {
            let drawn = parts.swap_remove(below(parts.len() as u64) as usize);
            parts = vec![drawn.shortened()];
        }
        (!parts.is_empty()).then_some(UnchangedRangesCheck(parts))
    }

    pub(super) async fn audit(&self, probe: Option<UnchangedRangesCheck>) -> Result<(), CopyDisksError> {
        let Some(UnchangedRangesCheck(parts)) = probe else { return Ok(()) };
        raise(&self.session.progress.segments_audited, 1);
        for Part { range, reads, expected } in parts {
            let content = self.read(&range, &reads).await?;
            let is_as_expected = self.session.work(move |session| match expected {
                Some(id) => session.keys.id(BlobKind::Chunk, &content) == id,
                None => is_zero(&content),
            });
            if !is_as_expected.await {
                return Err(CopyDisksError::DirtyBitmapMissedChange {
                    disk: self.name.to_owned(),
                    at: range.start,
                });
            }
        }
        Ok(())
    }
}

impl Part {
    /// A chunk is compared whole, of a hole a part is enough.
    fn shortened(self) -> Part {
        if self.expected.is_some() {
            return self;
        }
        let read = &self.reads[below(self.reads.len() as u64) as usize];
        let length = (read.end - read.start).min(HOLE_BYTES_MAX);
        let start = read.start + below(read.end - read.start - length + 1);
        let range = start..start + length;
        Part { reads: vec![range.clone()], range, expected: None }
    }
}

/// A number below `end`, which is not 0.
fn below(end: u64) -> u64 {
    u64::from_le_bytes(random()) % end
}
