use proptest::prelude::*;

use super::*;
use crate::chunker::{Chunker, Chunking};
use crate::ids::BlobId;
use crate::keys::Keys;

/// The leaf of a whole segment; a chunk is named by its content.
fn whole(cutter: &DiskChunker, segment: &[u8]) -> Vec<Piece> {
    cutter.cut(segment).into_iter().map(|cut| piece(segment, cut)).collect()
}

fn piece(segment: &[u8], cut: PieceRange) -> Piece {
    match cut {
        PieceRange::Hole(range) => Piece::Hole { bytes: range.len() as u32 },
        PieceRange::Chunk(range) => {
            let id = BlobId::from(*blake3::hash(&segment[range.clone()]).as_bytes());
            Piece::Chunk { id, bytes: range.len() as u32 }
        }
    }
}

/// The leaf by a dirty bitmap, and how many bytes were asked for.
fn patched(
    cutter: &DiskChunker,
    before: &[Piece],
    now: &[u8],
    changed: &[Range<usize>],
) -> (Vec<Piece>, usize) {
    let mut seen = vec![0; now.len()];
    let mut read = 0;
    let mut recut = IncrementalSegmentChunker::new(cutter.clone(), before.to_vec(), changed);
    loop {
        match recut.step(&seen) {
            Step::Read(ranges) => {
                assert!(ranges.is_sorted_by(|a, b| a.end < b.start), "in order and apart: {ranges:?}");
                for range in ranges {
                    read += range.len();
                    seen[range.clone()].copy_from_slice(&now[range]);
                }
            }
            Step::Done(parts) => {
                let pieces = parts.into_iter().map(|part| match part {
                    SegmentPart::Kept(piece) => piece,
                    SegmentPart::Rechunked(cut) => piece(&seen, cut),
                });
                return (pieces.collect(), read);
            }
        }
    }
}

fn noise(seed: u64, bytes: &mut [u8]) {
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(bytes);
}

#[derive(Clone, Debug)]
struct Write {
    at: usize,
    length: usize,
    /// `None` writes zeros.
    noise: Option<u64>,
    /// On the grid, or at any byte.
    on_grid: bool,
    /// Whether it is in the map only, and changes nothing.
    touched_only: bool,
}

fn writes(segment: usize, longest: usize, most: usize) -> impl Strategy<Value = Vec<Write>> {
    let seed = prop_oneof![Just(None), (0u64..3).prop_map(Some), any::<u64>().prop_map(Some)];
    let write = (0..segment, 1..longest, seed, any::<bool>(), prop::bool::weighted(0.1));
    prop::collection::vec(write, 0..most).prop_map(|writes| {
        let write =
            |(at, length, noise, on_grid, touched_only)| Write { at, length, noise, on_grid, touched_only };
        writes.into_iter().map(write).collect()
    })
}

/// Writes, and says in order which ranges were touched.
fn write_all(segment: &mut [u8], writes: &[Write]) -> Vec<Range<usize>> {
    let mut touched = vec![false; segment.len()];
    for write in writes {
        let (mut at, mut end) = (write.at, write.at + write.length);
        if write.on_grid {
            (at, end) = (at / BLOCK_BYTES * BLOCK_BYTES, end.next_multiple_of(BLOCK_BYTES));
        }
        let range = at.min(segment.len())..end.min(segment.len());
        touched[range.clone()].fill(true);
        match write.noise {
            _ if write.touched_only => {}
            Some(seed) => noise(seed, &mut segment[range]),
            None => segment[range].fill(0),
        }
    }
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for at in (0..segment.len()).filter(|at| touched[*at]) {
        match ranges.last_mut() {
            Some(last) if last.end == at => last.end = at + 1,
            _ => ranges.push(at..at + 1),
        }
    }
    ranges
}

fn cutters() -> impl Strategy<Value = (Chunker, u32)> {
    let aligned = |phase| Just((Chunker::AlignedCdc, phase));
    prop_oneof![2 => Just((Chunker::FastCdc, 0)), 1 => aligned(0), 1 => aligned(3584)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn a_segment_that_was_cut_again_where_it_changed_is_as_if_cut_whole(
        (chunker, phase) in cutters(),
        length in prop_oneof![Just(512 * 1024usize), 1usize..512 * 1024],
        full: bool,
        first in writes(512 * 1024, 100_000, 12),
        second in writes(512 * 1024, 40_000, 6),
    ) {
        let cutter = DiskChunker::new(Chunking::tiny(chunker), &Keys::known(), phase);
        let mut segment = vec![0; length];
        if full {
            noise(99, &mut segment);
        }
        write_all(&mut segment, &first);
        let before = whole(&cutter, &segment);
        let changed = write_all(&mut segment, &second);
        let (pieces, read) = patched(&cutter, &before, &segment, &changed);
        prop_assert_eq!(pieces, whole(&cutter, &segment));
        prop_assert!(read <= length.next_multiple_of(BLOCK_BYTES));
    }
}

#[test]
fn little_more_is_read_than_the_chunks_that_changed() {
    let cutter = DiskChunker::new(Chunking::default(), &Keys::known(), 0);
    let mut segment = vec![0; 4 * 1024 * 1024];
    noise(1, &mut segment);
    let before = whole(&cutter, &segment);
    let mut read_in_all = 0;
    for place in 0..100 {
        let at = place * 40_960;
        let mut now = segment.clone();
        let changed = at..at + 65_536;
        noise(place as u64, &mut now[changed.clone()]);
        let (pieces, read) = patched(&cutter, &before, &now, std::slice::from_ref(&changed));
        assert_eq!(pieces, whole(&cutter, &now));
        read_in_all += read;
    }
    let mean = read_in_all / 100;
    println!("mean bytes read for one change of 64 KiB: {mean}");
    assert!(mean < 320 * 1024, "{mean} bytes for a change of 64 KiB");
}
