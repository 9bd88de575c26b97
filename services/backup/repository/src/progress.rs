//! The progress of a long operation, readable at any time.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::snapshot::BackupStats;

/// Counters that workers increase; reading them costs the workers nothing.
#[derive(Debug, Default)]
pub struct Progress {
    total_bytes: AtomicU64,
    done_bytes: AtomicU64,
    pub(crate) read_bytes: AtomicU64,
    pub(crate) new_bytes: AtomicU64,
    pub(crate) stored_bytes: AtomicU64,
    pub(crate) segments_read: AtomicU64,
    pub(crate) segments_reused: AtomicU64,
    pub(crate) segments_empty: AtomicU64,
    pub(crate) segments_audited: AtomicU64,
    pub(crate) bitmaps_rejected: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgressCounters {
    /// Bytes of the whole work: virtual disk bytes for backup and restore, stored bytes for verify.
    pub total_bytes: u64,
    /// Bytes of it that are done.
    pub done_bytes: u64,
    /// Bytes read from the sources (backup) or from the store (restore, verify).
    pub read_bytes: u64,
    /// Bytes of chunks that the repository did not have.
    pub new_bytes: u64,
    /// Bytes written to the store.
    pub stored_bytes: u64,
}

impl Progress {
    /// All counters at zero.
    pub fn new() -> Progress {
        Progress::default()
    }

    /// Reads the counters; each is exact, together they may be a moment apart.
    pub fn read(&self) -> ProgressCounters {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProgressCounters {
            total_bytes: of(&self.total_bytes),
            done_bytes: of(&self.done_bytes),
            read_bytes: of(&self.read_bytes),
            new_bytes: of(&self.new_bytes),
            stored_bytes: of(&self.stored_bytes),
        }
    }

    pub(crate) fn expect_bytes(&self, bytes: u64) {
        self.total_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn done(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds the counters of another operation.
    pub(crate) fn add(&self, other: &Progress) {
        let pairs = [
            (&self.total_bytes, &other.total_bytes),
            (&self.done_bytes, &other.done_bytes),
            (&self.read_bytes, &other.read_bytes),
            (&self.new_bytes, &other.new_bytes),
            (&self.stored_bytes, &other.stored_bytes),
        ];
        for (sum, part) in pairs {
            raise(sum, part.load(Ordering::Relaxed));
        }
    }

    pub(crate) fn stats(&self) -> BackupStats {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        BackupStats {
            read_bytes: of(&self.read_bytes),
            new_bytes: of(&self.new_bytes),
            stored_bytes: of(&self.stored_bytes),
            segments_read: of(&self.segments_read),
            segments_reused: of(&self.segments_reused),
            zero_segments: of(&self.segments_empty),
            unchanged_segments_checked: of(&self.segments_audited),
            dirty_bitmaps_rejected: of(&self.bitmaps_rejected),
        }
    }
}

/// Increases a counter.
pub(crate) fn raise(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
