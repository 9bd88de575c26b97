//! Cutting a segment again of which only some places have changed.
//!
//! Promises: the outcome is the one of cutting the whole segment; of unchanged bytes only those are asked for that
//! are needed.
//!
//! ```text
//!   before    | chunk | chunk | chunk | chunk |   hole   | chunk |
//!   changed               ^^
//!   window            |-----------|.                               from a piece's start to a block after one's end
//!   now       | kept  | new |  new | kept  |   kept   | kept  |
//!                                  ^ a cut in the window where there was one: from here on all is as before
//! ```
//!
//! Why it holds: where a chunk ends follows from its own bytes and at most the next one, except where the stretch of data ends,
//! and a stretch ends where a run of zeros is long enough. So a window may begin at any piece before the change as long
//! as no run of zeros reaches from the change back to its start; and what follows an old cut that is also a new one is
//! as it was, unless a run of zeros reaches over it whose end was not seen. Where it is otherwise the window grows.
//!
//! It does no IO: it returns the ranges it needs, the caller fills them in and calls again.

use std::ops::Range;

use crate::chunker::{BLOCK_BYTES, DiskChunker, PieceRange, blocks, is_zero};
use crate::format::recipe::Piece;

/// A piece of the segment as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SegmentPart {
    /// As it was.
    Kept(Piece),
    /// Cut again.
    Rechunked(PieceRange),
}

/// What is to be done next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Fill in these ranges of the segment, which are on the grid and in order, and ask again.
    Read(Vec<Range<usize>>),
    /// The segment, put together.
    Done(Vec<SegmentPart>),
}

/// Pieces that are cut again.
struct Window {
    /// Which pieces of before.
    pieces: Range<usize>,
    /// From the first changed byte to the last.
    changed: Range<usize>,
    /// By how many pieces it grows when its end is not found.
    stride: usize,
    /// What it is cut into, when that is known.
    cuts: Option<Vec<PieceRange>>,
}

/// What became of a window.
enum Outcome {
    Settled { end: usize, cuts: Vec<PieceRange> },
    StartsTooLate,
    EndsTooEarly,
}

/// The state of cutting one segment again.
pub(crate) struct IncrementalSegmentChunker {
    cutter: DiskChunker,
    pieces: Vec<Piece>,
    /// Where each piece starts, and where the last one ends.
    bounds: Vec<usize>,
    windows: Vec<Window>,
    /// Which blocks of the grid the caller has filled in.
    known: Vec<bool>,
}

impl Window {
    fn take(&mut self, outcome: Outcome, pieces: usize) {
        match outcome {
            Outcome::Settled { end, cuts } => {
                self.pieces.end = end;
                self.cuts = Some(cuts);
            }
            Outcome::StartsTooLate => self.pieces.start -= 1,
            Outcome::EndsTooEarly => {
                self.pieces.end = (self.pieces.end + self.stride).min(pieces);
                self.stride *= 2;
            }
        }
    }
}

impl IncrementalSegmentChunker {
    /// `pieces` are those of before, `changed` the ranges that may be different now: not empty, in order, apart, and
    /// within the segment.
    pub(crate) fn new(
        cutter: DiskChunker,
        pieces: Vec<Piece>,
        changed: &[Range<usize>],
    ) -> IncrementalSegmentChunker {
        let mut bounds = vec![0];
        for piece in &pieces {
            bounds.push(bounds[bounds.len() - 1] + piece.bytes() as usize);
        }
        let length = bounds[pieces.len()];
        let mut known = vec![false; length.div_ceil(BLOCK_BYTES)];
        for (piece, bounds) in pieces.iter().zip(bounds.windows(2)) {
            if let Piece::Hole { .. } = piece {
                let end = if bounds[1] == length { known.len() } else { bounds[1] / BLOCK_BYTES };
                let start = bounds[0].div_ceil(BLOCK_BYTES).min(end);
                known[start..end].fill(true);
            }
        }
        let mut windows = Vec::with_capacity(changed.len());
        for range in changed {
            known[grid(range)].fill(false);
            let piece_at = |at| bounds.partition_point(|bound| *bound <= at) - 1;
            let pieces = piece_at(range.start)..piece_at(range.end - 1) + 1;
            windows.push(Window { pieces, changed: range.clone(), stride: 1, cuts: None });
        }
        let mut recut = IncrementalSegmentChunker { cutter, pieces, bounds, windows, known };
        recut.merge();
        recut
    }

    /// Goes on with what `segment` holds where it was filled in; all else in it must be zero.
    pub(crate) fn step(&mut self, segment: &[u8]) -> Step {
        loop {
            let unknown = self.unknown();
            if !unknown.is_empty() {
                return Step::Read(unknown);
            }
            for index in 0..self.windows.len() {
                if self.windows[index].cuts.is_none() {
                    let outcome = self.attempt(&self.windows[index], segment);
                    self.windows[index].take(outcome, self.pieces.len());
                }
            }
            self.merge();
            if self.windows.iter().all(|window| window.cuts.is_some()) {
                return Step::Done(self.parts());
            }
        }
    }

    /// What is not known yet of that which open windows must see. It counts as known from now on.
    fn unknown(&mut self) -> Vec<Range<usize>> {
        let open = self.windows.iter().filter(|window| window.cuts.is_none());
        let views: Vec<_> = open.map(|window| self.view(&window.pieces)).collect();
        let mut unknown: Vec<Range<usize>> = Vec::new();
        for block in views.iter().flat_map(grid) {
            if std::mem::replace(&mut self.known[block], true) {
                continue;
            }
            let (start, end) = (block * BLOCK_BYTES, ((block + 1) * BLOCK_BYTES).min(self.length()));
            match unknown.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => unknown.push(start..end),
            }
        }
        unknown
    }

    /// What must be seen of the segment for some pieces: more than their end, so that a cut there shows.
    fn view(&self, pieces: &Range<usize>) -> Range<usize> {
        let end = (self.bounds[pieces.end] / BLOCK_BYTES + 1) * BLOCK_BYTES;
        self.bounds[pieces.start]..end.min(self.length())
    }

    fn length(&self) -> usize {
        self.bounds[self.pieces.len()]
    }

    fn attempt(&self, window: &Window, segment: &[u8]) -> Outcome {
        let view = self.view(&window.pieces);
        if self.starts_too_late(window, segment, &view) {
            return Outcome::StartsTooLate;
        }
        // Cuts up to here do not depend on what follows the view.
        let sure =
            if view.end == self.length() { view.end } else { last_data(segment, &view).min(view.end - 1) };
        let mut cuts = self.cutter.cut_part(segment, view);
        for (index, cut) in cuts.iter().enumerate() {
            let (PieceRange::Hole(range) | PieceRange::Chunk(range)) = cut;
            if (window.changed.end..=sure).contains(&range.end)
                && let Ok(end) = self.bounds.binary_search(&range.end)
            {
                cuts.truncate(index + 1);
                return Outcome::Settled { end, cuts };
            }
        }
        Outcome::EndsTooEarly
    }

    /// Whether the bytes before the window may be cut in another way than before.
    fn starts_too_late(&self, window: &Window, segment: &[u8], view: &Range<usize>) -> bool {
        if view.start == 0 {
            return false;
        }
        match self.pieces[window.pieces.start] {
            // What is left of the hole may be too short to end the chunk before it.
            Piece::Hole { .. } => {
                window.changed.start - view.start < self.cutter.chunking().hole_bytes_min as usize
            }
            // The cut before depends on the first byte; and the change may be the end of a run of zeros that begins
            // before the window.
            Piece::Chunk { .. } => {
                window.changed.start == view.start || first_data(segment, view) > window.changed.start
            }
        }
    }

    /// Windows that have grown into each other become one.
    fn merge(&mut self) {
        self.windows.dedup_by(|next, window| {
            let overlap = next.pieces.start < window.pieces.end;
            if overlap {
                window.pieces.end = window.pieces.end.max(next.pieces.end);
                window.changed.end = next.changed.end;
                window.stride = window.stride.max(next.stride);
                window.cuts = None;
            }
            overlap
        });
    }

    fn parts(&mut self) -> Vec<SegmentPart> {
        let mut parts = Vec::with_capacity(self.pieces.len());
        let mut at = 0;
        for Window { pieces, cuts, .. } in self.windows.drain(..) {
            parts.extend(self.pieces[at..pieces.start].iter().copied().map(SegmentPart::Kept));
            parts.extend(cuts.into_iter().flatten().map(SegmentPart::Rechunked));
            at = pieces.end;
        }
        parts.extend(self.pieces[at..].iter().copied().map(SegmentPart::Kept));
        parts
    }
}

/// The numbers of the blocks that a range touches.
fn grid(range: &Range<usize>) -> Range<usize> {
    range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES)
}

/// Where the zeros end with which a part of a segment begins.
fn first_data(segment: &[u8], part: &Range<usize>) -> usize {
    let found = blocks(part.clone()).find(|block| !is_zero(&segment[block.clone()]));
    found.map_or(part.end, |block| block.start)
}

/// Where the zeros begin with which a part of a segment ends.
fn last_data(segment: &[u8], part: &Range<usize>) -> usize {
    let mut start = part.end;
    while start > part.start {
        let before = ((start - 1) / BLOCK_BYTES * BLOCK_BYTES).max(part.start);
        if !is_zero(&segment[before..start]) {
            break;
        }
        start = before;
    }
    start
}

#[cfg(test)]
mod tests;
