//! What a step sees: the world, its input, a meter to tell how far it is, and whether somebody gave up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use contract::OperationId;
use contract::operation::Progress;
use tokio_util::sync::CancellationToken;

/// The context of every step function: the world `W` of the service and the input `I` of this operation.
pub struct Context<W, I> {
    /// The ports of the service.
    pub world: Arc<W>,
    /// What the command asked for.
    pub input: I,
    /// Which operation this is.
    pub id: OperationId,
    /// For telling how far a long step is.
    pub meter: Meter,
    /// Cancelled when somebody gave the operation up, or the process is ending. Long steps look at it.
    pub cancel: CancellationToken,
}

/// Counters that a step turns and the runner tells; turning one costs an atomic store.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    counters: Arc<[AtomicU64; 3]>,
}

impl Meter {
    /// How many bytes the step at hand will go through.
    pub fn set_total(&self, bytes: u64) {
        self.counters[0].store(bytes, Ordering::Relaxed);
    }

    /// How many bytes it has gone through.
    pub fn set_done(&self, bytes: u64) {
        self.counters[1].store(bytes, Ordering::Relaxed);
    }

    /// How many bytes had to be stored anew.
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
