//! Locks on ranges of blocks: a missing block becomes present by one writer at a time.

use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard};

/// Claims are held for a local write and never while a source is read, so waits are short.
#[derive(Debug, Default)]
pub(super) struct BlockLocks {
    held: Mutex<Vec<Range<u64>>>,
    released: Condvar,
}

/// Blocks that no other writer makes present while this lives.
#[derive(Debug)]
pub(super) struct BlockLockGuard<'a> {
    claims: &'a BlockLocks,
    blocks: Range<u64>,
}

impl BlockLocks {
    /// Waits until all of these blocks are free and takes them. Blocks the thread.
    pub(super) fn take(&self, blocks: Range<u64>) -> BlockLockGuard<'_> {
        let overlap = |held: &mut Vec<Range<u64>>| {
            held.iter().any(|other| other.start < blocks.end && blocks.start < other.end)
        };
        let mut held =
            self.released.wait_while(self.lock(), overlap).expect("no thread panics while it holds the lock");
        held.push(blocks.clone());
        BlockLockGuard { claims: self, blocks }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Range<u64>>> {
        self.held.lock().expect("no thread panics while it holds the lock")
    }
}

impl Drop for BlockLockGuard<'_> {
    fn drop(&mut self) {
        let mut held = self.claims.lock();
        if let Some(index) = held.iter().position(|blocks| *blocks == self.blocks) {
            held.swap_remove(index);
        }
        self.claims.released.notify_all();
    }
}
