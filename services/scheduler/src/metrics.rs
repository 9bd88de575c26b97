//! What the scheduler counts.

use chrono::TimeDelta;
use contract::scheduler::RunOutcome;
use telemetry::{Counter, Histogram, KeyValue};

/// Appointments by outcome (`begun`, `not_begun`).
pub(crate) const RUNS: &str = "loam_scheduler_runs_total";
/// How long after its due time an appointment was fired.
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

    pub(crate) fn settled(&self, outcome: &RunOutcome) {
        let word = match outcome {
            RunOutcome::Asking(_) => return,
            RunOutcome::Begun(_) => "begun",
            RunOutcome::NotBegun(_) => "not_begun",
        };
        self.runs.add(1, &[KeyValue::new("outcome", word)]);
    }
}
