//! The metrics of the proxy.

use std::time::Duration;

use telemetry::{Counter, Histogram, KeyValue, UpDownCounter, meter};

/// The instruments; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    requests: Counter<u64>,
    upstream_failures: Counter<u64>,
    request_duration: Histogram<f64>,
    pub(crate) client_connections: UpDownCounter<i64>,
    pub(crate) tunnels: UpDownCounter<i64>,
}

/// From a cached response to a long upload; the usual response of a VM takes 1 ms to 1 s.
const DURATION_BOUNDS_SECONDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];

impl Metrics {
    pub(crate) fn new() -> Self {
        let meter = meter("loam_proxy");
        Self {
            requests: meter
                .u64_counter("loam_proxy_requests_total")
                .with_description("requests completed, by class of status code")
                .build(),
            upstream_failures: meter
                .u64_counter("loam_proxy_upstream_failures_total")
                .with_description("attempts that got no response from the upstream, by reason")
                .build(),
            request_duration: meter
                .f64_histogram("loam_proxy_request_duration_seconds")
                .with_description(
                    "from the head of a request to the last byte of its response, tunnels excepted",
                )
                .with_boundaries(DURATION_BOUNDS_SECONDS.to_vec())
                .build(),
            client_connections: meter
                .i64_up_down_counter("loam_proxy_client_connections")
                .with_description("open client connections")
                .build(),
            tunnels: meter
                .i64_up_down_counter("loam_proxy_tunnels")
                .with_description("open upgraded connections")
                .build(),
        }
    }

    /// Counts a request whose response has ended.
    pub(crate) fn request_completed(&self, status: u16, duration: Duration) {
        let class = [KeyValue::new("status_class", status_class(status))];
        self.requests.add(1, &class);
        if status != 101 {
            self.request_duration.record(duration.as_secs_f64(), &class);
        }
    }

    /// Counts an attempt that failed.
    pub(crate) fn upstream_failed(&self, reason: &'static str) {
        self.upstream_failures.add(1, &[KeyValue::new("reason", reason)]);
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
