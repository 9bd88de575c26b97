//! What the front counts.

use std::time::Duration;

use telemetry::{Counter, Histogram, KeyValue, UpDownCounter, meter};

/// The instruments; clones count into the same ones.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    requests: Counter<u64>,
    upstream_failures: Counter<u64>,
    request_duration: Histogram<f64>,
    pub(super) open_connections: UpDownCounter<i64>,
    pub(super) open_tunnels: UpDownCounter<i64>,
}

/// From a cache's answer to a long upload; the usual answer of a machine lies between 1 ms and 1 s.
const DURATION_BOUNDS_SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];

impl Metrics {
    pub(super) fn new() -> Self {
        let meter = meter("loam_proxy");
        Self {
            requests: meter
                .u64_counter("loam_proxy_requests_total")
                .with_description("requests answered, by class of status")
                .build(),
            upstream_failures: meter
                .u64_counter("loam_proxy_upstream_failures_total")
                .with_description("tries that a machine did not answer, by what went wrong")
                .build(),
            request_duration: meter
                .f64_histogram("loam_proxy_request_duration_seconds")
                .with_description(
                    "from a request's head to the last byte of its answer; tunnels are not counted",
                )
                .with_boundaries(DURATION_BOUNDS_SECONDS.to_vec())
                .build(),
            open_connections: meter
                .i64_up_down_counter("loam_proxy_open_connections")
                .with_description("client connections open now")
                .build(),
            open_tunnels: meter
                .i64_up_down_counter("loam_proxy_open_tunnels")
                .with_description("upgraded connections open now")
                .build(),
        }
    }

    /// Counts an answered request.
    pub(super) fn answered(&self, status: u16, took: Duration) {
        let class = [KeyValue::new("status_class", status_class(status))];
        self.requests.add(1, &class);
        if status != 101 {
            self.request_duration.record(took.as_secs_f64(), &class);
        }
    }

    /// Counts a try that failed.
    pub(super) fn upstream_failed(&self, kind: &'static str) {
        self.upstream_failures.add(1, &[KeyValue::new("kind", kind)]);
    }
}

fn status_class(status: u16) -> &'static str {
    match status {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    }
}
