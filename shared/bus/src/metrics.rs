//! The metrics of calls, at both ends.

use std::sync::LazyLock;
use std::time::Duration;

use contract::Request;
use telemetry::{Counter, Gauge, Histogram, KeyValue, meter};

use crate::call::CallError;
use crate::serve::ErrorReply;

/// Requests answered, by request and outcome (`answered`, `refused`, `failed`).
pub(crate) const SERVED: &str = "loam_bus_served_total";
/// From a request's arrival to its reply, by request.
pub(crate) const SERVE_DURATION: &str = "loam_bus_serve_duration_seconds";
/// Requests sent, by request and outcome (`answered`, `refused`, `failed`; `lost`: no readable reply came).
pub(crate) const CALLS: &str = "loam_bus_calls_total";

/// Rows that this process found and cannot read, by table.
pub(crate) const UNREADABLE_ROWS: &str = "loam_bus_unreadable_rows";

/// Tables that this process found lost and made anew, by table.
pub(crate) const TABLES_LOST: &str = "loam_bus_tables_lost_total";

/// From a read of memory to the longest reply the bus allows.
const SERVE_BOUNDS_SECONDS: [f64; 10] = [0.0005, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 30.0, 120.0];

struct Metrics {
    served: Counter<u64>,
    serve_duration: Histogram<f64>,
    calls: Counter<u64>,
    unreadable_rows: Gauge<u64>,
    tables_lost: Counter<u64>,
}

/// Made at the first request, when telemetry is set up.
static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let meter = meter("loam_bus");
    Metrics {
        served: meter
            .u64_counter(SERVED)
            .with_description("requests answered, by request and outcome")
            .build(),
        serve_duration: meter
            .f64_histogram(SERVE_DURATION)
            .with_description("from a request's arrival to its reply")
            .with_boundaries(SERVE_BOUNDS_SECONDS.to_vec())
            .build(),
        calls: meter.u64_counter(CALLS).with_description("requests sent, by request and outcome").build(),
        unreadable_rows: meter
            .u64_gauge(UNREADABLE_ROWS)
            .with_description("rows that cannot be read, by table")
            .build(),
        tables_lost: meter
            .u64_counter(TABLES_LOST)
            .with_description("tables that were found lost and made anew, by table")
            .build(),
    }
});

pub(crate) fn served<R: Request>(answer: &Result<R::Reply, ErrorReply<R::Refusal>>, took: Duration) {
    let outcome = match answer {
        Ok(_) => "answered",
        Err(ErrorReply::Refused(_)) => "refused",
        Err(ErrorReply::Failed(_)) => "failed",
    };
    let request = KeyValue::new("request", R::NAME);
    METRICS.serve_duration.record(took.as_secs_f64(), std::slice::from_ref(&request));
    METRICS.served.add(1, &[request, KeyValue::new("outcome", outcome)]);
}

pub(crate) fn called<R: Request>(answer: &Result<R::Reply, CallError<R::Refusal>>) {
    let outcome = match answer {
        Ok(_) => "answered",
        Err(CallError::Refused(_) | CallError::RefusedByLaterVersion { .. }) => "refused",
        Err(CallError::Failed(_)) => "failed",
        Err(CallError::Transport { .. } | CallError::UnreadableReply { .. }) => "lost",
    };
    let labels = [KeyValue::new("request", R::NAME), KeyValue::new("outcome", outcome)];
    METRICS.calls.add(1, &labels);
}

pub(crate) fn table_lost(table: &'static str) {
    METRICS.tables_lost.add(1, &[KeyValue::new("table", table)]);
}

pub(crate) fn unreadable_rows(table: &'static str, count: usize) {
    METRICS.unreadable_rows.record(count as u64, &[KeyValue::new("table", table)]);
}
