//! What a step sees: the state of its service, its command, a progress meter, and whether it was cancelled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use contract::OperationId;
use contract::operation::Progress;
use tokio_util::sync::CancellationToken;

/// The context of every step function: the state `S` of the service and the command `C` of this operation.
pub struct Context<S, C> {
    /// The service's state: its ports and actors.
    pub state: Arc<S>,
    /// The command that began the operation.
    pub command: C,
    /// Which operation this is.
    pub id: OperationId,
    /// For reporting how far a long step is.
    pub progress: ProgressMeter,
    /// Cancelled when the operation is cancelled or the process is ending. Long steps check it.
    pub cancel: CancellationToken,
}

/// Counters that a step sets and the engine publishes; setting one costs an atomic store.
#[derive(Clone, Debug, Default)]
pub struct ProgressMeter {
    counters: Arc<[AtomicU64; 3]>,
}

impl ProgressMeter {
    /// How many bytes the current step will go through.
    pub fn set_total(&self, bytes: u64) {
        self.counters[0].store(bytes, Ordering::Relaxed);
    }

    /// How many bytes it has gone through.
    pub fn set_done(&self, bytes: u64) {
        self.counters[1].store(bytes, Ordering::Relaxed);
    }

    /// How many bytes were new and had to be stored.
    pub fn set_stored(&self, bytes: u64) {
        self.counters[2].store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn clear(&self) {
        self.counters.iter().for_each(|counter| counter.store(0, Ordering::Relaxed));
    }

    pub(crate) fn read(&self) -> Option<Progress> {
        let [total, done, stored] =
            [0, 1, 2].map(|index: usize| self.counters[index].load(Ordering::Relaxed));
        let stored = (stored > 0).then_some(stored);
        (total > 0 || done > 0).then_some(Progress {
            done_bytes: done,
            total_bytes: total,
            stored_bytes: stored,
        })
    }
}
