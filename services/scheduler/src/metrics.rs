//! The metrics of the scheduler.

use chrono::TimeDelta;
use contract::scheduler::{RunStartStatus, ScheduledCommand};
use telemetry::{Counter, Histogram, KeyValue};

/// Runs by outcome (`started`, `not_started`) and command.
pub(crate) const RUNS: &str = "loam_scheduler_runs_total";
/// How long after its due time a run fired.
pub(crate) const LATENESS: &str = "loam_scheduler_lateness_seconds";

/// The instruments.
#[derive(Clone)]
pub(crate) struct Metrics {
    runs: Counter<u64>,
    lateness: Histogram<f64>,
}

impl Metrics {
    pub(crate) fn new() -> Metrics {
        let meter = telemetry::meter("loam_scheduler");
        Metrics {
            runs: meter.u64_counter(RUNS).build(),
            lateness: meter.f64_histogram(LATENESS).with_unit("s").build(),
        }
    }

    pub(crate) fn fired(&self, late: TimeDelta) {
        self.lateness.record(late.as_seconds_f64(), &[]);
    }

    pub(crate) fn recorded(&self, command: &ScheduledCommand, outcome: &RunStartStatus) {
        let label = match outcome {
            RunStartStatus::Sending(_) | RunStartStatus::Unknown(_) => return,
            RunStartStatus::Started(_) => "started",
            RunStartStatus::NotStarted(_) => "not_started",
        };
        let command = KeyValue::new("command", command.command.clone());
        self.runs.add(1, &[KeyValue::new("outcome", label), command]);
    }
}
