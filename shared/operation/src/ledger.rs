//! The journal on the bus: recorded by compare-and-set, told as events.

use std::time::Duration;

use bus::{Bus, Revision, Table, TableError};
use contract::operation::OperationChanged;
use saga::{Journal, Ledger, Lost, StepFuture, Trouble};
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::progress::Meter;
use crate::record::Record;

/// While the bus is away, the wait between attempts to record. An operation cannot go on without its journal, and
/// must not be given up because of it.
const RECORD_AGAIN: Duration = Duration::from_secs(1);
/// How often progress inside a step is told.
const TELL_EVERY: Duration = Duration::from_millis(500);

pub(crate) struct BusLedger {
    pub(crate) bus: Bus,
    pub(crate) table: Table<Record>,
    pub(crate) record: Record,
    pub(crate) revision: Revision,
    pub(crate) meter: Meter,
    /// Somebody gave the operation up.
    pub(crate) cancel: CancellationToken,
    /// The process is ending; what is under way goes on after its next start.
    pub(crate) ending: CancellationToken,
}

impl BusLedger {
    async fn tell(&self) {
        let report = self.record.report(self.meter.read());
        if let Err(error) = self.bus.publish(&OperationChanged(report)).await {
            tracing::debug!(operation = %self.record.id, %error, "a move was not told; the row holds it");
        }
    }

    /// An update whose answer was lost looks like somebody else's; the row itself tells.
    async fn was_ours(&self) -> Result<Option<Revision>, TableError> {
        let key = Record::key(self.record.service, &self.record.id);
        let row = self.table.get(&key).await?;
        Ok(row.filter(|row| row.value == self.record).map(|row| row.revision))
    }
}

impl Ledger for BusLedger {
    async fn record(&mut self, journal: &Journal) -> Result<(), Lost> {
        self.record.moved_to(journal, chrono::Utc::now());
        self.meter.clear();
        let key = Record::key(self.record.service, &self.record.id);
        loop {
            if self.ending.is_cancelled() {
                return Err(Lost);
            }
            let outcome = match self.table.update(&key, &self.record, self.revision).await {
                Err(TableError::Conflict { .. }) => match self.was_ours().await {
                    Ok(None) => {
                        tracing::warn!(operation = %self.record.id, "somebody else drives this operation; leaving it");
                        return Err(Lost);
                    }
                    Ok(Some(revision)) => Ok(revision),
                    Err(error) => Err(error),
                },
                outcome => outcome,
            };
            match outcome {
                Ok(revision) => {
                    self.revision = revision;
                    self.tell().await;
                    return Ok(());
                }
                Err(error) => {
                    tracing::warn!(operation = %self.record.id, %error, "the journal cannot be written; waiting");
                    tokio::select! {
                        () = tokio::time::sleep(RECORD_AGAIN) => {}
                        () = self.ending.cancelled() => return Err(Lost),
                    }
                }
            }
        }
    }

    async fn pause(&mut self, duration: Duration) {
        tokio::select! {
            () = tokio::time::sleep(duration) => {}
            () = self.ending.cancelled() => {}
        }
    }

    async fn within<'a>(
        &'a mut self,
        limit: Duration,
        step: &'static str,
        work: StepFuture<'a>,
    ) -> Option<Result<Value, Trouble>> {
        let span = tracing::info_span!("step", otel.name = step, operation = %self.record.id);
        let mut work = work.instrument(span);
        let deadline = tokio::time::sleep(limit);
        tokio::pin!(deadline);
        let mut ticks = tokio::time::interval_at(Instant::now() + TELL_EVERY, TELL_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            tokio::select! {
                outcome = &mut work => {
                    if let Err(Trouble::Passing(trouble)) = &outcome {
                        // It is tried again and ends in the record only if it lasts; who looks at the log sees why.
                        tracing::warn!(operation = %self.record.id, step, trouble, "a step met passing trouble");
                    }
                    return Some(outcome);
                }
                () = &mut deadline => return None,
                _ = ticks.tick() => {
                    let progress = self.meter.read();
                    if progress != told {
                        told = progress;
                        self.tell().await;
                    }
                }
                // The work is dropped where it waits; it will be repeated, which every step must bear.
                () = self.ending.cancelled() => return Some(Err(Trouble::Final("the process is ending".into()))),
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}
