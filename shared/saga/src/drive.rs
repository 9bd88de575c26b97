//! Driving a saga along its journal.

use std::future::Future;
use std::time::Duration;

use serde_json::Value;

use crate::journal::{Action, Journal, JournalEntry, SagaOutcome, next_action};
use crate::step::{Outputs, Step, StepError, StepFuture};

/// Pauses between attempts after transient errors; the last one repeats.
const BACK_OFF: [Duration; 6] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// How long an undo is tried again, whatever the step's own `retry_for`: what it leaves behind needs a person.
const UNDO_RETRY_FOR: Duration = Duration::from_secs(600);

/// Another driver owns the journal now, or this process is ending: stop without another action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal is no longer ours")]
pub struct FencedError;

/// What a driver needs of its surroundings: a durable journal, a clock, cancellation.
pub trait Runtime: Send {
    /// Makes the journal durable before the driver goes on. Of two drivers of the same saga at most one succeeds.
    fn record(&mut self, journal: &Journal) -> impl Future<Output = Result<(), FencedError>> + Send;
    /// Waits.
    fn pause(&mut self, duration: Duration) -> impl Future<Output = ()> + Send;
    /// Runs a step function for at most `timeout`; `None` where it took longer.
    fn within<'a>(
        &'a mut self,
        timeout: Duration,
        step: &'static str,
        work: StepFuture<'a>,
    ) -> impl Future<Output = Option<Result<Value, StepError>>> + Send + 'a;
    /// Whether cancellation was requested.
    fn is_cancelled(&self) -> bool;
}

/// Drives a saga to its end.
///
/// # Errors
/// When another driver took the journal over, or the process is ending.
pub async fn drive<C: Sync + 'static, R: Runtime>(
    steps: &[Step<C>],
    context: &C,
    journal: &mut Journal,
    runtime: &mut R,
) -> Result<SagaOutcome, FencedError> {
    let order: Vec<&str> = steps.iter().map(|step| step.name).collect();
    loop {
        match next_action(&order, journal) {
            Action::End(outcome) => return Ok(outcome),
            Action::Do(_) if runtime.is_cancelled() => {
                append(journal, runtime, JournalEntry::Cancelled).await?;
            }
            Action::Do(index) => act(&steps[index], context, journal, runtime).await?,
            Action::Undo(index) => undo(&steps[index], context, journal, runtime).await?,
        }
    }
}

async fn append<R: Runtime>(
    journal: &mut Journal,
    runtime: &mut R,
    entry: JournalEntry,
) -> Result<(), FencedError> {
    journal.entries.push(entry);
    runtime.record(journal).await
}

async fn act<C: Sync + 'static, R: Runtime>(
    step: &Step<C>,
    context: &C,
    journal: &mut Journal,
    runtime: &mut R,
) -> Result<(), FencedError> {
    let name = step.name.to_string();
    let again = journal.entries.last() == Some(&JournalEntry::Started(name.clone()));
    if !again {
        append(journal, runtime, JournalEntry::Started(name.clone())).await?;
    }
    let outputs = Outputs::of(journal);
    let attempt = Attempt { step, retry: Retry::UntilCancelled(step.retry_for) };
    let outcome = attempt.run(|| (step.act)(context, &outputs), runtime).await;
    let entry = match outcome {
        Ok(value) => JournalEntry::Done(name, value),
        Err(_) if runtime.is_cancelled() => JournalEntry::Cancelled,
        Err(reason) => JournalEntry::Failed(name, reason),
    };
    append(journal, runtime, entry).await
}

async fn undo<C: Sync + 'static, R: Runtime>(
    step: &Step<C>,
    context: &C,
    journal: &mut Journal,
    runtime: &mut R,
) -> Result<(), FencedError> {
    let name = step.name.to_string();
    let Some(undo) = &step.undo else {
        return append(journal, runtime, JournalEntry::Undone(name)).await;
    };
    append(journal, runtime, JournalEntry::Undoing(name.clone())).await?;
    let outputs = Outputs::of(journal);
    let attempt = Attempt { step, retry: Retry::Always(UNDO_RETRY_FOR) };
    let entry = match attempt.run(|| undo(context, &outputs), runtime).await {
        Ok(_) => JournalEntry::Undone(name),
        Err(reason) => JournalEntry::UndoFailed(name, reason),
    };
    append(journal, runtime, entry).await
}

/// How long transient errors are tried again: an act gives up when it is cancelled, an undo does not.
#[derive(Clone, Copy)]
enum Retry {
    UntilCancelled(Duration),
    Always(Duration),
}

struct Attempt<'a, C> {
    step: &'a Step<C>,
    retry: Retry,
}

impl<C> Attempt<'_, C> {
    async fn run<'a, R: Runtime>(
        &self,
        work: impl Fn() -> StepFuture<'a>,
        runtime: &mut R,
    ) -> Result<Value, String> {
        let mut waited = Duration::ZERO;
        let mut tries = 0;
        loop {
            let reason = match runtime.within(self.step.timeout, self.step.name, work()).await {
                Some(Ok(value)) => return Ok(value),
                Some(Err(StepError::Permanent(reason))) => return Err(reason),
                Some(Err(StepError::Transient(reason))) => reason,
                None => format!("took longer than {} s", self.step.timeout.as_secs()),
            };
            let pause = BACK_OFF[tries.min(BACK_OFF.len() - 1)];
            let spent = match self.retry {
                Retry::UntilCancelled(max) => waited + pause > max || runtime.is_cancelled(),
                Retry::Always(max) => waited + pause > max,
            };
            if spent {
                return Err(reason);
            }
            runtime.pause(pause).await;
            waited += pause;
            tries += 1;
        }
    }
}
