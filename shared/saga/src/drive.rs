//! Running a saga against its journal.

use std::future::Future;
use std::time::Duration;

use serde_json::Value;

use crate::journal::{Ending, Entry, Journal, Move, next_move};
use crate::step::{Step, StepFuture, Trail, Trouble};

/// Waits between attempts at passing trouble: quick at first, then calm.
const BACK_OFF: [Duration; 6] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];
/// Undoing matters more than doing: it is tried this long, whatever the step's own patience.
const UNDO_PATIENCE: Duration = Duration::from_secs(600);

/// The journal belongs to somebody else now, or this process is ending. Stop without another deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the journal is not ours any more")]
pub struct Lost;

/// Keeps a journal and lends the driver a clock.
pub trait Ledger: Send {
    /// Makes the journal durable before the driver goes on. Of two drivers of the same saga at most one succeeds.
    fn record(&mut self, journal: &Journal) -> impl Future<Output = Result<(), Lost>> + Send;
    /// Waits.
    fn pause(&mut self, duration: Duration) -> impl Future<Output = ()> + Send;
    /// Runs a step function for at most `limit`; nothing where it took longer.
    fn within<'a>(
        &'a mut self,
        limit: Duration,
        step: &'static str,
        work: StepFuture<'a>,
    ) -> impl Future<Output = Option<Result<Value, Trouble>>> + Send + 'a;
    /// Whether somebody asked to give up.
    fn is_cancelled(&self) -> bool;
}

/// Drives a saga to its end, or until the ledger is lost.
pub async fn drive<C: Sync, L: Ledger>(
    steps: &[Step<C>],
    context: &C,
    journal: &mut Journal,
    ledger: &mut L,
) -> Result<Ending, Lost> {
    let order: Vec<&str> = steps.iter().map(|step| step.name).collect();
    loop {
        match next_move(&order, journal) {
            Move::End(ending) => return Ok(ending),
            Move::Do(_) if ledger.is_cancelled() => write(journal, ledger, Entry::Cancelled).await?,
            Move::Do(index) => act(&steps[index], context, journal, ledger).await?,
            Move::Undo(index) => undo(&steps[index], context, journal, ledger).await?,
        }
    }
}

async fn write<L: Ledger>(journal: &mut Journal, ledger: &mut L, entry: Entry) -> Result<(), Lost> {
    journal.entries.push(entry);
    ledger.record(journal).await
}

async fn act<C: Sync, L: Ledger>(
    step: &Step<C>,
    context: &C,
    journal: &mut Journal,
    ledger: &mut L,
) -> Result<(), Lost> {
    let name = step.name.to_string();
    let again = journal.entries.last() == Some(&Entry::Started(name.clone()));
    if !again {
        write(journal, ledger, Entry::Started(name.clone())).await?;
    }
    let outcome =
        attempt(step.act, step, Patience::UntilCancelled(step.patience), context, journal, ledger).await;
    let entry = match outcome {
        Ok(value) => Entry::Done(name, value),
        Err(_) if ledger.is_cancelled() => Entry::Cancelled,
        Err(reason) => Entry::Failed(name, reason),
    };
    write(journal, ledger, entry).await
}

async fn undo<C: Sync, L: Ledger>(
    step: &Step<C>,
    context: &C,
    journal: &mut Journal,
    ledger: &mut L,
) -> Result<(), Lost> {
    let name = step.name.to_string();
    let Some(function) = step.undo else {
        return write(journal, ledger, Entry::Undone(name)).await;
    };
    write(journal, ledger, Entry::Undoing(name.clone())).await?;
    let entry =
        match attempt(function, step, Patience::Stubborn(UNDO_PATIENCE), context, journal, ledger).await {
            Ok(_) => Entry::Undone(name),
            Err(reason) => Entry::UndoFailed(name, reason),
        };
    write(journal, ledger, entry).await
}

/// How long passing trouble is borne: an act gives up when somebody cancels, an undo does not.
#[derive(Clone, Copy)]
enum Patience {
    UntilCancelled(Duration),
    Stubborn(Duration),
}

async fn attempt<C: Sync, L: Ledger>(
    function: for<'a> fn(&'a C, &'a Trail<'a>) -> StepFuture<'a>,
    step: &Step<C>,
    patience: Patience,
    context: &C,
    journal: &Journal,
    ledger: &mut L,
) -> Result<Value, String> {
    let trail = Trail(journal);
    let mut waited = Duration::ZERO;
    let mut tries = 0;
    loop {
        let outcome = ledger.within(step.limit, step.name, function(context, &trail)).await;
        let trouble = match outcome {
            Some(Ok(value)) => return Ok(value),
            Some(Err(Trouble::Final(reason))) => return Err(reason),
            Some(Err(Trouble::Passing(reason))) => reason,
            None => format!("took longer than {} s", step.limit.as_secs()),
        };
        let pause = BACK_OFF[tries.min(BACK_OFF.len() - 1)];
        let spent = match patience {
            Patience::UntilCancelled(limit) => waited + pause > limit || ledger.is_cancelled(),
            Patience::Stubborn(limit) => waited + pause > limit,
        };
        if spent {
            return Err(trouble);
        }
        ledger.pause(pause).await;
        waited += pause;
        tries += 1;
    }
}
