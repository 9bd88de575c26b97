//! Stores a segment of which some ranges have changed, reading little more than those.

use std::ops::Range;

use futures::{StreamExt, TryStreamExt};

use super::CopyDisksError;
use super::disk::DiskCopy;
use super::packer::WorkerError;
use crate::format::recipe::Piece;
use crate::ids::BlobId;
use crate::recut::{IncrementalSegmentChunker, Step};

/// Reads of one segment at one time.
const READS_IN_FLIGHT: usize = 8;

/// What is known of a segment before it is read.
pub(super) struct SegmentPatchPlan {
    /// What may be other than zero.
    pub(super) nonzero_ranges: Vec<Range<u64>>,
    /// What changed since the parent.
    pub(super) changed_ranges: Vec<Range<u64>>,
    /// What it was cut into in the parent.
    pub(super) parent_pieces: Vec<Piece>,
}

impl DiskCopy<'_> {
    /// Stores one segment; `None` is a segment of zeros.
    pub(super) async fn patch(
        &self,
        segment: &Range<u64>,
        patch: SegmentPatchPlan,
    ) -> Result<Option<BlobId>, CopyDisksError> {
        let SegmentPatchPlan { nonzero_ranges: reads, changed_ranges: changed, parent_pieces: pieces } =
            patch;
        let within =
            |range: &Range<u64>| (range.start - segment.start) as usize..(range.end - segment.start) as usize;
        let changed: Vec<_> = changed.iter().map(within).collect();
        let mut recut = IncrementalSegmentChunker::new(self.chunker.clone(), pieces, &changed);
        let mut bytes = vec![0; (segment.end - segment.start) as usize];
        loop {
            let stepped = self.session.work(move |session| match recut.step(&bytes) {
                Step::Done(parts) => Stepped::Stored(session.store_parts(&bytes, parts)),
                Step::Read(ranges) => Stepped::Wants { recut, bytes, ranges },
            });
            let ranges;
            (recut, bytes, ranges) = match stepped.await {
                Stepped::Stored(leaf) => return Ok(leaf?),
                Stepped::Wants { recut, bytes, ranges } => (recut, bytes, ranges),
            };
            let on_disk =
                |range: &Range<usize>| segment.start + range.start as u64..segment.start + range.end as u64;
            let mut found = futures::stream::iter(both(ranges.iter().map(on_disk), &reads))
                .map(|range| async move { Ok::<_, CopyDisksError>((self.read_exact(&range).await?, range)) })
                .buffer_unordered(READS_IN_FLIGHT);
            while let Some((content, range)) = found.try_next().await? {
                bytes[within(&range)].copy_from_slice(&content);
            }
        }
    }
}

/// The outcome of one step of a worker.
enum Stepped {
    Stored(Result<Option<BlobId>, WorkerError>),
    Wants { recut: IncrementalSegmentChunker, bytes: Vec<u8>, ranges: Vec<Range<usize>> },
}

/// The intersections of some ranges with others.
pub(super) fn both(some: impl Iterator<Item = Range<u64>>, others: &[Range<u64>]) -> Vec<Range<u64>> {
    let meet = |range: Range<u64>| {
        let met = others.iter().map(move |other| range.start.max(other.start)..range.end.min(other.end));
        met.filter(|range| !range.is_empty())
    };
    some.flat_map(meet).collect()
}
