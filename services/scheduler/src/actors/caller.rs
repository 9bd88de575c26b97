//! The Caller fires an appointment: claims it, asks the service concerned, writes down what came of it and tells it.
//! It keeps nothing: when it dies, the diary says what is left to ask.

use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler, Message, ResponseFuture};
use actor::Traced;
use bus::{Bus, Entry, TableError};
use contract::OperationId;
use contract::backup::StartBackup;
use contract::scheduler::{Run, RunFired, RunOutcome, Schedule, ScheduledWork};
use contract::message::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::Instrument;

use crate::diary::{Claim, Diary, RunRow};
use crate::metrics::Metrics;
use crate::ports::Clock;

/// Letters that may wait; the Timekeeper waits for a place where there are more.
const MAILBOX: usize = 64;
/// Appointments that are asked for at the same time: many may fall due at midnight, and the other side has a desk of
/// its own size.
const AT_ONCE_MAX: usize = 32;
/// One question: the answer to a command that lasts is only its id.
const CALL_MAX: Duration = Duration::from_secs(10);
/// How long passing trouble of the other side is borne: long enough for a restart or an upgrade of it.
const ASK_PATIENCE: Duration = Duration::from_secs(600);
/// Waits between questions; the last one repeats.
const ASK_BACK_OFF: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
    Duration::from_secs(30),
];
/// How often writing down an outcome is tried; what is not written down is asked for again later, with the same id.
const SETTLE_TRIES: usize = 30;
/// The wait between these.
const SETTLE_AGAIN: Duration = Duration::from_secs(2);
/// The wait before an appointment that could not be claimed is tried again.
const CLAIM_AGAIN: Duration = Duration::from_secs(2);
/// Reasons are cut here, so that lists of runs fit into an answer.
const REASON_MAX: usize = 300;

/// Fires appointments.
pub struct Caller {
    desk: Arc<Desk>,
}

struct Desk {
    bus: Bus,
    diary: Diary,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    places: Semaphore,
}

/// Fire this appointment.
#[derive(Message)]
#[rtype(result = "Fired")]
pub(crate) struct Fire {
    pub(crate) schedule: Schedule,
    pub(crate) due: Timestamp,
}

/// What came of firing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fired {
    /// It is kept, by us or by another scheduler.
    Kept,
    /// There is no such schedule any more.
    Gone,
    /// The diary does not answer; the appointment stands.
    NotNow,
}

/// Ask again for a run that somebody left unsettled.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct TakeOver {
    pub(crate) row: Entry<RunRow>,
}

impl Caller {
    pub(crate) fn start(bus: Bus, diary: Diary, clock: Arc<dyn Clock>) -> Addr<Caller> {
        let desk = Desk { bus, diary, clock, metrics: Metrics::new(), places: Semaphore::new(AT_ONCE_MAX) };
        actor::start(MAILBOX, Caller { desk: Arc::new(desk) })
    }
}

impl Actor for Caller {
    type Context = Context<Self>;
}

impl Handler<Traced<Fire>> for Caller {
    type Result = ResponseFuture<Fired>;

    fn handle(&mut self, asked: Traced<Fire>, _: &mut Context<Self>) -> Self::Result {
        let desk = Arc::clone(&self.desk);
        let Fire { schedule, due } = asked.message;
        Box::pin(async move { desk.fire(&schedule, due).await }.instrument(asked.span))
    }
}

impl Handler<Traced<TakeOver>> for Caller {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, asked: Traced<TakeOver>, _: &mut Context<Self>) -> Self::Result {
        let desk = Arc::clone(&self.desk);
        let row = asked.message.row;
        Box::pin(async move { desk.bring_about(row).await }.instrument(asked.span))
    }
}

impl Desk {
    async fn fire(&self, schedule: &Schedule, due: Timestamp) -> Fired {
        let now = self.clock.now();
        match self.diary.claim(schedule, due, now).await {
            Ok(Claim::Ours(row)) => {
                self.metrics.fired(now - due);
                self.bring_about(row).await;
                if let Err(error) = self.diary.prune(&schedule.id).await {
                    tracing::debug!(schedule = %schedule.id, %error, "old runs stay until the next one");
                }
                Fired::Kept
            }
            Ok(Claim::Kept) => Fired::Kept,
            Ok(Claim::Gone) => Fired::Gone,
            Err(error) => {
                tracing::warn!(schedule = %schedule.id, %due, %error, "an appointment waits for the diary");
                self.clock.pass(CLAIM_AGAIN).await;
                Fired::NotNow
            }
        }
    }

    /// Asks, writes down, tells.
    async fn bring_about(&self, row: Entry<RunRow>) {
        let RunOutcome::Asking(id) = &row.value.run.outcome else {
            return;
        };
        let outcome = {
            let _place = self.places.acquire().await.expect("nobody closes the semaphore");
            self.ask(&row.value.run, &row.value.work, id).await
        };
        match self.settle(&row, outcome).await {
            Ok(Some(run)) => self.tell(run).await,
            Ok(None) => tracing::debug!(run = row.key, "settled by somebody else"),
            Err(error) => {
                tracing::warn!(run = row.key, %error, "what came of a run is not written down; it is asked for again");
            }
        }
    }

    async fn ask(&self, run: &Run, work: &ScheduledWork, id: &OperationId) -> RunOutcome {
        let ScheduledWork::Backup { vm } = work;
        let question = StartBackup {
            vm: vm.clone(),
            schedule: Some(run.schedule.clone()),
            operation_id: Some(id.clone()),
        };
        let mut spent = Duration::ZERO;
        let mut tries = 0;
        loop {
            let asked = Instant::now();
            let error = match self.bus.call(&question, CALL_MAX).await {
                Ok(begun) => return RunOutcome::Begun(begun.operation().clone()),
                Err(error) => error,
            };
            let pause = ASK_BACK_OFF[tries.min(ASK_BACK_OFF.len() - 1)];
            spent += asked.elapsed() + pause;
            tries += 1;
            if !error.is_transient() {
                return not_begun(&error.to_string());
            }
            if spent > ASK_PATIENCE {
                return not_begun(&format!(
                    "asked for {} minutes in vain: {error}",
                    ASK_PATIENCE.as_secs() / 60
                ));
            }
            tracing::info!(schedule = %run.schedule, %error, "asking again in {} s", pause.as_secs());
            self.clock.pass(pause).await;
        }
    }

    async fn settle(&self, row: &Entry<RunRow>, outcome: RunOutcome) -> Result<Option<Run>, TableError> {
        let mut tries = 0;
        loop {
            match self.diary.settle(row, outcome.clone()).await {
                Err(error) if tries < SETTLE_TRIES => {
                    tracing::debug!(run = row.key, %error, "writing it down again");
                    tries += 1;
                    self.clock.pass(SETTLE_AGAIN).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn tell(&self, run: Run) {
        self.metrics.settled(&run.outcome);
        match &run.outcome {
            RunOutcome::NotBegun(reason) => {
                tracing::warn!(schedule = %run.schedule, due = %run.due, reason, "an appointment was not kept");
            }
            outcome => {
                tracing::info!(schedule = %run.schedule, due = %run.due, ?outcome, "an appointment was kept")
            }
        }
        if let Err(error) = self.bus.publish(&RunFired(run)).await {
            tracing::debug!(%error, "a run was not told; the diary holds it");
        }
    }
}

fn not_begun(reason: &str) -> RunOutcome {
    RunOutcome::NotBegun(reason.chars().take(REASON_MAX).collect())
}
