//! What a step sees: the state of its service, its command, a progress meter, and whether it was cancelled.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use contract::OperationId;
use contract::operation::{Progress, ScriptOutput};
use tokio_util::sync::CancellationToken;

/// The context of every step function: the state `S` of the service and the command `C` of this operation.
pub struct Context<S, C> {
    /// The service's state: its ports and actors.
    pub state: Arc<S>,
    /// The command that began the operation.
    pub command: C,
    /// Which operation this is.
    pub id: OperationId,
    /// For what the scripts that a step runs write.
    pub scripts: ScriptOutputs,
    /// For reporting how far a long step is.
    pub progress: ProgressMeter,
    /// Cancelled when the operation is cancelled or the process is ending. Long steps check it.
    pub cancel: CancellationToken,
}

/// What the scripts of an operation wrote. It may hold secrets: it is kept with the operation, encrypted, and shown on
/// request. Only the operations of commands with secret fields keep it; it is recorded with the end of the step.
#[derive(Clone, Debug, Default)]
pub struct ScriptOutputs(Arc<Mutex<Vec<ScriptOutput>>>);

impl ScriptOutputs {
    pub(crate) fn new(outputs: Vec<ScriptOutput>) -> Self {
        ScriptOutputs(Arc::new(Mutex::new(outputs)))
    }

    /// Keeps what a script wrote, in place of what it wrote in an earlier attempt.
    pub fn keep(&self, script: &str, output: String) {
        let mut outputs = self.outputs();
        outputs.retain(|kept| kept.script != script);
        outputs.push(ScriptOutput { script: script.into(), output });
    }

    pub(crate) fn read(&self) -> Vec<ScriptOutput> {
        self.outputs().clone()
    }

    fn outputs(&self) -> MutexGuard<'_, Vec<ScriptOutput>> {
        self.0.lock().expect("no code here panics while it holds the lock")
    }
}

/// What is published of a reason to wait, at most.
const WAITING_CHARS_MAX: usize = 400;

/// Counters that a step sets and the engine publishes; setting one costs an atomic store.
#[derive(Clone, Debug, Default)]
pub struct ProgressMeter {
    counters: Arc<[AtomicU64; 3]>,
    waiting_for: Arc<Mutex<Option<String>>>,
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

    /// Says why the current step goes no further; nothing where it does.
    pub fn set_waiting_for(&self, reason: Option<&str>) {
        let reason = reason.map(|reason| reason.chars().take(WAITING_CHARS_MAX).collect());
        *self.waiting_for.lock().expect("no code here panics while it holds the lock") = reason;
    }

    pub(crate) fn waiting_for(&self) -> Option<String> {
        self.waiting_for.lock().expect("no code here panics while it holds the lock").clone()
    }

    pub(crate) fn clear(&self) {
        self.set_waiting_for(None);
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
