//! Read-ahead: detects sequential readers.

use std::collections::VecDeque;
use std::ops::Range;

/// Sequential readers that are tracked; one client may read in several places at once.
const STREAMS_MAX: usize = 8;
/// What is read ahead at the second read of a stream; it doubles with each further one.
const AHEAD_BYTES_FIRST: u64 = 256 * 1024;

/// A run of reads, each beginning about where the last one ended.
#[derive(Clone, Copy, Debug)]
struct Stream {
    end: u64,
    /// Up to here it was read ahead.
    ahead: u64,
    window: u64,
}

/// The streams of one disk.
#[derive(Debug)]
pub(super) struct Streams {
    /// The last one used is the last.
    streams: VecDeque<Stream>,
    window_max: u64,
}

impl Streams {
    pub(super) fn new(window_max: u64) -> Streams {
        Streams { streams: VecDeque::new(), window_max }
    }

    /// Records a read and returns what to read ahead because of it. Clients with many requests in flight send them a
    /// little out of order, so a read counts as the next one when it begins within its own length of the end.
    pub(super) fn note(&mut self, read: &Range<u64>) -> Option<Range<u64>> {
        let slack = read.end - read.start;
        let follows = |stream: &Stream| {
            read.end > stream.end && read.start.abs_diff(stream.end) <= slack && self.window_max > 0
        };
        let Some(found) = self.streams.iter().position(follows) else {
            if self.streams.len() == STREAMS_MAX {
                self.streams.pop_front();
            }
            self.streams.push_back(Stream { end: read.end, ahead: read.end, window: AHEAD_BYTES_FIRST });
            return None;
        };
        let mut stream = self.streams.remove(found)?;
        stream.end = read.end;
        let begin = stream.ahead.max(stream.end);
        let window = stream.window.min(self.window_max);
        // Half a window at a time: small steps would make small requests.
        let ahead = (begin - stream.end <= window / 2).then_some(begin..stream.end + window);
        if let Some(range) = &ahead {
            stream.ahead = range.end;
            stream.window = (stream.window * 2).min(self.window_max);
        }
        self.streams.push_back(stream);
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    #[test]
    fn a_sequential_reader_gets_a_growing_read_ahead_and_nothing_twice() {
        let mut streams = Streams::new(8 * MIB);
        let mut ahead = Vec::new();
        for at in (0..64 * MIB).step_by(64 * 1024) {
            ahead.extend(streams.note(&(at..at + 64 * 1024)));
        }
        assert!(ahead.is_sorted_by(|a, b| a.end <= b.start), "{ahead:?}");
        assert!(ahead.len() < 40, "{} steps", ahead.len());
        assert!(ahead.last().unwrap().end >= 66 * MIB, "{ahead:?}");
    }

    #[test]
    fn random_reads_read_nothing_ahead() {
        let mut streams = Streams::new(8 * MIB);
        for at in [0, 90 * MIB, 5 * MIB, 4096, 90 * MIB, 30 * MIB, 5 * MIB + 12288] {
            assert_eq!(streams.note(&(at..at + 1024)), None, "at {at}");
        }
    }

    #[test]
    fn two_sequential_readers_are_tracked() {
        let mut streams = Streams::new(8 * MIB);
        let mut ahead = 0;
        for step in 0..8 {
            for base in [0, 500 * MIB] {
                let at = base + step * MIB;
                ahead += u32::from(streams.note(&(at..at + MIB)).is_some());
            }
        }
        assert!(ahead >= 4, "{ahead}");
    }
}
