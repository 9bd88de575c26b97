//! The dispatcher makes a run: claims it, sends the command to its service, records the outcome and publishes it. It keeps
//! no state: when the process dies, the store holds what is left to send.

use std::sync::Arc;
use std::time::Duration;

use bus::{Bus, Entry, TableError};
use contract::message::{Timestamp, with_causes};
use contract::scheduler::{RunFired, RunStartStatus, Schedule, ScheduledCommand, ScheduledRun};
use contract::{OperationId, ScheduleId};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::commands::CommandType;
use crate::metrics::Metrics;
use crate::ports::Clock;
use crate::store::{ClaimOutcome, RunRow, ScheduleStore};

/// Commands that are sent at the same time: many schedules may fire at midnight, and a service answers 64 requests of a
/// kind at a time.
const CONCURRENT_MAX: usize = 32;
/// How long transient failures are tried again: long enough for a restart or an upgrade of the service.
const RETRY_FOR: Duration = Duration::from_secs(600);
/// Pauses between attempts; the last one repeats.
const BACK_OFF: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
    Duration::from_secs(30),
];
/// How often recording an outcome is tried; a run whose outcome is not recorded is sent again later, with the same id.
const RECORD_TRIES: usize = 30;
/// The pause between these.
const RECORD_PAUSE: Duration = Duration::from_secs(2);
/// The pause before a run that could not be claimed is tried again.
const CLAIM_PAUSE: Duration = Duration::from_secs(2);
/// Reasons are cut here, so that lists of runs fit into an answer.
const REASON_CHARS_MAX: usize = 300;

/// Makes runs.
pub(crate) struct Dispatcher {
    bus: Bus,
    store: ScheduleStore,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    slots: Semaphore,
}

/// What became of a run that fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FireOutcome {
    /// It is made, by us or by another scheduler.
    Done,
    /// The schedule was removed or replaced.
    ScheduleGone,
    /// The store does not answer; the run is still due.
    StillDue,
}

impl Dispatcher {
    pub(crate) fn new(bus: Bus, store: ScheduleStore, clock: Arc<dyn Clock>) -> Arc<Dispatcher> {
        let slots = Semaphore::new(CONCURRENT_MAX);
        Arc::new(Dispatcher { bus, store, clock, metrics: Metrics::new(), slots })
    }

    /// Makes the run that is due.
    pub(crate) async fn fire(&self, schedule: &Schedule, due: Timestamp) -> FireOutcome {
        let now = self.clock.now();
        match self.store.claim(schedule, due, now).await {
            Ok(ClaimOutcome::Ours(row)) => {
                self.metrics.fired(now - due);
                self.complete(*row).await;
                if let Err(error) = self.store.prune(&schedule.id).await {
                    tracing::debug!(schedule = %schedule.id, error = with_causes(&error), "old runs stay until the next one");
                }
                FireOutcome::Done
            }
            Ok(ClaimOutcome::Done) => FireOutcome::Done,
            Ok(ClaimOutcome::ScheduleGone) => FireOutcome::ScheduleGone,
            Err(error) => {
                tracing::warn!(schedule = %schedule.id, %due, error = with_causes(&error), "a due run waits for the store");
                self.clock.pass(CLAIM_PAUSE).await;
                FireOutcome::StillDue
            }
        }
    }

    /// Completes a claimed run: sends the command, records the outcome, publishes it.
    pub(crate) async fn complete(&self, row: Entry<RunRow>) {
        let RunStartStatus::Sending(id) = &row.value.run.outcome else {
            return;
        };
        let outcome = {
            let _slot = self.slots.acquire().await.expect("nobody closes the semaphore");
            self.send(&row.value, id).await
        };
        match self.record(&row, outcome).await {
            Ok(Some(run)) => self.publish(&row.value.command, run).await,
            Ok(None) => tracing::debug!(run = row.key, "another scheduler recorded the outcome"),
            Err(error) => {
                tracing::warn!(
                    run = row.key,
                    error = with_causes(&error),
                    "the outcome of a run is not recorded; the command is sent again"
                );
            }
        }
    }

    async fn send(&self, row: &RunRow, id: &OperationId) -> RunStartStatus {
        let (schedule, command): (&ScheduleId, _) = (&row.run.schedule, &row.command);
        let Some(kind) = CommandType::find(command) else {
            let (service, name) = (command.service, &command.command);
            return not_started(&format!("this version of the scheduler cannot send {name} to {service}"));
        };
        let person = &row.created_by;
        if self.bus.people().is_removed(person) {
            return not_started(&format!(
                "{person}, who added the schedule, was removed; add the schedule again"
            ));
        }
        let mut spent = Duration::ZERO;
        let mut tries = 0;
        loop {
            let started = Instant::now();
            let fields_of_run = [id.to_string(), schedule.to_string()];
            let unsent = match kind.send(&self.bus, &row.created_by, &command.body, fields_of_run).await {
                Ok(operation) => return RunStartStatus::Started(operation),
                Err(unsent) => unsent,
            };
            let (pause, reason) = (BACK_OFF[tries.min(BACK_OFF.len() - 1)], unsent.reason);
            spent += started.elapsed() + pause;
            tries += 1;
            if !unsent.is_transient {
                return not_started(&reason);
            }
            if spent > RETRY_FOR {
                return not_started(&format!("tried for {} minutes: {reason}", RETRY_FOR.as_secs() / 60));
            }
            tracing::info!(%schedule, reason, "sending the command again in {} s", pause.as_secs());
            self.clock.pass(pause).await;
        }
    }

    async fn record(
        &self,
        row: &Entry<RunRow>,
        outcome: RunStartStatus,
    ) -> Result<Option<ScheduledRun>, TableError> {
        let mut tries = 0;
        loop {
            match self.store.record(row, outcome.clone()).await {
                Err(error) if tries < RECORD_TRIES => {
                    tracing::debug!(
                        run = row.key,
                        error = with_causes(&error),
                        "recording the outcome again"
                    );
                    tries += 1;
                    self.clock.pass(RECORD_PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn publish(&self, command: &ScheduledCommand, run: ScheduledRun) {
        self.metrics.recorded(command, &run.outcome);
        match &run.outcome {
            RunStartStatus::NotStarted(reason) => {
                tracing::warn!(schedule = %run.schedule, due = %run.due, reason, "a run could not start its operation");
            }
            outcome => {
                tracing::info!(schedule = %run.schedule, due = %run.due, ?outcome, "a run started its operation");
            }
        }
        if let Err(error) = self.bus.publish(&RunFired(run)).await {
            tracing::debug!(%error, "the event of a run was not published; the store holds the run");
        }
    }
}

fn not_started(reason: &str) -> RunStartStatus {
    RunStartStatus::NotStarted(reason.chars().take(REASON_CHARS_MAX).collect())
}
