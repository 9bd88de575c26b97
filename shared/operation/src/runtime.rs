//! The journal on the bus: recorded by compare-and-set, published as events.

use std::sync::Arc;
use std::time::Duration;

use bus::{Bus, Revision, Table, TableError};
use contract::message::with_causes;
use contract::operation::OperationChanged;
use saga::{FencedError, Journal, Runtime, StepError, StepFuture};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::confidential::Cipher;
use crate::context::{ProgressMeter, ScriptOutputs};
use crate::index::Index;
use crate::record::OperationRecord;

/// While the bus is away, the wait between attempts to record. An operation cannot go on without its journal, and
/// must not be given up because of it.
const RECORD_RETRY: Duration = Duration::from_secs(1);
/// How often progress inside a step is published.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(500);

/// What is encrypted in the row, readable.
pub(crate) struct Confidential {
    pub(crate) cipher: Cipher,
    pub(crate) command: Value,
    pub(crate) scripts: ScriptOutputs,
}

pub(crate) struct BusRuntime {
    pub(crate) bus: Bus,
    pub(crate) table: Table<OperationRecord>,
    /// Changes when the table was lost and made anew.
    pub(crate) generation: watch::Receiver<u64>,
    pub(crate) index: Arc<Index>,
    /// Where the command has secret fields.
    pub(crate) confidential: Option<Confidential>,
    pub(crate) operation_record: OperationRecord,
    pub(crate) revision: Revision,
    pub(crate) progress: ProgressMeter,
    /// The operation is to be cancelled.
    pub(crate) cancel: CancellationToken,
    /// The process is ending; what is under way goes on after its next start.
    pub(crate) shutdown: CancellationToken,
}

impl BusRuntime {
    /// Takes the journal over into the row, encrypted where it has to be.
    fn follow(&mut self, journal: &Journal) {
        let record = &mut self.operation_record;
        record.follow(journal, chrono::Utc::now());
        if let Some(Confidential { cipher, command, scripts }) = &self.confidential {
            let stored = match record.state.is_final() {
                true => cipher.end(command, scripts),
                false => cipher.record(command, scripts, &mut record.journal),
            };
            record.command = stored.expect("the row was decrypted, so there is a key");
        }
    }

    async fn publish(&self) {
        let report = self.operation_record.report(Some(&self.progress));
        if let Err(error) = self.bus.publish(&OperationChanged(report)).await {
            tracing::debug!(operation = %self.operation_record.id, %error, "a change was not published; the row holds it");
        }
    }

    async fn write(&self) -> Result<Revision, TableError> {
        let (key, record) = (self.operation_record.id.as_str(), &self.operation_record);
        self.table.update_owned(key, record, self.revision).await
    }

    /// Writes the row again after its table was lost. Whatever hinders it, the next record shows it.
    async fn write_again(&mut self) {
        if let Ok(revision) = self.write().await {
            tracing::warn!(operation = %self.operation_record.id, "the table of operations was lost; this one is written again");
            self.written(revision);
        }
    }

    fn written(&mut self, revision: Revision) {
        self.revision = revision;
        self.index.enter(&self.operation_record, revision);
    }
}

impl Runtime for BusRuntime {
    async fn record(&mut self, journal: &Journal) -> Result<(), FencedError> {
        self.follow(journal);
        self.progress.clear();
        loop {
            if self.shutdown.is_cancelled() {
                return Err(FencedError);
            }
            match self.write().await {
                Ok(revision) => {
                    self.written(revision);
                    self.publish().await;
                    return Ok(());
                }
                Err(TableError::Conflict { .. }) => {
                    tracing::warn!(operation = %self.operation_record.id, "another process drives this operation; leaving it to that one");
                    return Err(FencedError);
                }
                Err(error @ TableError::Unreadable { .. }) => {
                    tracing::error!(operation = %self.operation_record.id, %error, "another version drives this operation; leaving it to that one");
                    return Err(FencedError);
                }
                Err(error) => {
                    tracing::warn!(operation = %self.operation_record.id, error = with_causes(&error), "the journal cannot be written; waiting");
                    tokio::select! {
                        () = tokio::time::sleep(RECORD_RETRY) => {}
                        () = self.shutdown.cancelled() => return Err(FencedError),
                    }
                }
            }
        }
    }

    async fn pause(&mut self, duration: Duration) {
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.shutdown.cancelled() => {}
        }
    }

    async fn within<'a>(
        &'a mut self,
        timeout: Duration,
        step: &'static str,
        work: StepFuture<'a>,
    ) -> Option<Result<Value, StepError>> {
        let span = tracing::info_span!("step", otel.name = step, operation = %self.operation_record.id);
        let mut work = work.instrument(span);
        let deadline = tokio::time::sleep(timeout);
        tokio::pin!(deadline);
        let mut ticks = tokio::time::interval_at(Instant::now() + PUBLISH_INTERVAL, PUBLISH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut published = Some((None, self.progress.waiting_for()));
        loop {
            tokio::select! {
                outcome = &mut work => {
                    if let Err(StepError::Transient(reason)) = &outcome {
                        // It is tried again, and the record holds it only if it lasts; the log shows why it takes so long.
                        tracing::warn!(operation = %self.operation_record.id, step, reason, "a step met a transient error; it is tried again");
                        self.progress.set_waiting_for(Some(reason));
                        self.publish().await;
                    }
                    return Some(outcome);
                }
                () = &mut deadline => {
                    let reason = format!("it took longer than {} s", timeout.as_secs());
                    self.progress.set_waiting_for(Some(&reason));
                    return None;
                }
                _ = ticks.tick() => {
                    let now = Some((self.progress.read(), self.progress.waiting_for()));
                    if now != published {
                        published = now;
                        self.publish().await;
                    }
                }
                Ok(()) = self.generation.changed() => self.write_again().await,
                // The work is dropped where it waits; it is repeated after the next start: steps are idempotent.
                () = self.shutdown.cancelled() => return Some(Err(StepError::Permanent("the process is ending".into()))),
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}
