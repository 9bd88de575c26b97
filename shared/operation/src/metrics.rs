//! The metrics of operations.

use std::sync::LazyLock;

use contract::Timestamp;
use saga::SagaOutcome;
use telemetry::{Counter, Histogram, KeyValue, UpDownCounter, meter};

/// Operations that ended, by kind and outcome (`done`, `undone`, `stuck`).
pub(crate) const ENDED: &str = "loam_operation_ended_total";
/// From its command to its end, restarts of the service included, by kind and outcome.
pub(crate) const DURATION: &str = "loam_operation_duration_seconds";
/// Operations that are driven now, by kind.
pub(crate) const RUNNING: &str = "loam_operation_running";

/// From a row or two to the copy of a large disk.
const DURATION_BOUNDS_SECONDS: [f64; 11] =
    [0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0];

struct Metrics {
    ended: Counter<u64>,
    duration: Histogram<f64>,
    running: UpDownCounter<i64>,
}

/// Made at the first operation, when telemetry is set up.
static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let meter = meter("loam_operation");
    Metrics {
        ended: meter
            .u64_counter(ENDED)
            .with_description("operations that ended, by kind and outcome")
            .build(),
        duration: meter
            .f64_histogram(DURATION)
            .with_description("from an operation's command to its end")
            .with_boundaries(DURATION_BOUNDS_SECONDS.to_vec())
            .build(),
        running: meter
            .i64_up_down_counter(RUNNING)
            .with_description("operations that are driven now")
            .build(),
    }
});

pub(crate) fn driver_started(kind: &'static str) {
    METRICS.running.add(1, &[KeyValue::new("kind", kind)]);
}

pub(crate) fn driver_stopped(kind: &'static str) {
    METRICS.running.add(-1, &[KeyValue::new("kind", kind)]);
}

pub(crate) fn ended(kind: &'static str, outcome: &SagaOutcome, started: Timestamp, now: Timestamp) {
    let label = match outcome {
        SagaOutcome::Done => "done",
        SagaOutcome::Undone(_) => "undone",
        SagaOutcome::Stuck(_) => "stuck",
    };
    let labels = [KeyValue::new("kind", kind), KeyValue::new("outcome", label)];
    METRICS.ended.add(1, &labels);
    // A clock that was set back makes no negative durations.
    METRICS.duration.record((now - started).as_seconds_f64().max(0.0), &labels);
}
