//! Access log, traces and metrics of the frontend.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Request, Response};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData, ResourceMetrics};
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use opentelemetry_sdk::trace::SdkTracerProvider;
use proxy::adapters::frontend::Settings;
use proxy::ports::Frontend;
use proxy_domain::forwarded::TrustedProxies;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;

use crate::support::{TestUpstream, empty, frontend_to, full, get, http1, read, set_routes, up};

/// Collects log lines.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("never poisoned").write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn access_records(&self) -> Vec<serde_json::Value> {
        let bytes = self.0.lock().expect("never poisoned").clone();
        let lines = String::from_utf8(bytes).expect("text");
        lines
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
            .filter(|line| line["target"] == "loam::access")
            .collect()
    }
}

#[tokio::test]
async fn every_request_has_one_access_record_without_its_query() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .json()
        .with_env_filter(EnvFilter::new("info"))
        .with_writer(move || writer.clone())
        .finish();
    let _installed = tracing::subscriber::set_default(subscriber);

    let web = TestUpstream::start(|_| async { Response::new(full("hello")) }).await;
    let frontend = frontend_to(Settings::default(), web.address).await;
    let mut client = http1(frontend.address()).await;
    let request =
        Request::post("/a?password=1").header("host", "WEB.example").body(full("abc")).expect("valid");
    read(client.send_request(request).await.expect("a response")).await;
    let request = Request::get("/b").header("host", "other.example").body(empty()).expect("valid");
    let (refused, _) = read(client.send_request(request).await.expect("a response")).await;
    testkit::eventually("both records are written", async || log.access_records().len() == 2).await;

    let lines = log.access_records();
    let first = &lines[0]["fields"];
    assert_eq!(first["host"], "web.example");
    assert_eq!(first["path"], "/a");
    assert_eq!((first["status"].as_u64(), first["attempts"].as_u64()), (Some(200), Some(1)));
    assert_eq!((first["bytes_received"].as_u64(), first["bytes_sent"].as_u64()), (Some(3), Some(5)));
    assert_eq!((first["vm"].as_str(), first["outcome"].as_str()), (Some("web"), Some("complete")));
    assert_eq!(first["upstream"], web.address.to_string());
    assert_eq!(first["client"], "127.0.0.1");
    assert!(first["duration_ms"].as_f64().is_some_and(|ms| ms > 0.0));
    let trace = web.last().headers["traceparent"].to_str().expect("text").to_owned();
    assert!(trace.contains(first["request_id"].as_str().expect("an id")), "the upstream has the same trace");

    let second = &lines[1]["fields"];
    assert_eq!(second["status"], 404);
    assert_eq!(second["request_id"], refused.headers()["x-request-id"].to_str().expect("text"));
    assert!(!log.access_records().iter().any(|line| line.to_string().contains("password")));
}

#[tokio::test]
async fn the_client_gets_the_trace_id_and_the_upstream_gets_the_span() {
    let provider = SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _installed = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));

    let web = TestUpstream::start(|_| async { Response::new(full("hello")) }).await;
    let trusted_proxies =
        TrustedProxies { networks: vec!["127.0.0.0/8".parse().expect("valid")], ..Default::default() };
    let frontend = frontend_to(Settings { trusted_proxies, ..Settings::default() }, web.address).await;
    let mut client = http1(frontend.address()).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut ask = async |host: &str, traceparent: Option<String>| {
        let mut request = Request::get("/").header("host", host);
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent).header("tracestate", "a=b");
        }
        let request = request.body(empty()).expect("valid");
        read(client.send_request(request).await.expect("a response")).await.0
    };
    let passed_on = || web.last().headers["traceparent"].to_str().expect("text").to_owned();

    ask("web.example", Some(format!("00-{trace}-00f067aa0ba902b7-01"))).await;
    assert!(
        passed_on().starts_with(&format!("00-{trace}-")) && passed_on().ends_with("-01"),
        "{}",
        passed_on()
    );
    assert!(!passed_on().contains("00f067aa0ba902b7"), "the parent is the proxy's span");
    assert_eq!(web.last().headers["tracestate"], "a=b");

    ask("web.example", None).await;
    assert!(
        !passed_on().contains(trace) && passed_on().ends_with("-01"),
        "a trace of its own: {}",
        passed_on()
    );
    let refused = ask("other.example", Some(format!("00-{trace}-00f067aa0ba902b7-01"))).await;
    assert_eq!(refused.headers()["x-request-id"], trace);
}

/// Collects the names and attributes of metrics.
#[derive(Clone, Default)]
struct Counted(Arc<Mutex<Vec<String>>>);

impl PushMetricExporter for Counted {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let mut counted = self.0.lock().expect("never poisoned");
        for metric in metrics.scope_metrics().flat_map(|scope| scope.metrics()) {
            if let AggregatedMetrics::U64(MetricData::Sum(sum)) = metric.data() {
                for point in sum.data_points() {
                    let labels: Vec<_> = point.attributes().map(|label| label.value.to_string()).collect();
                    counted.push(format!("{} {} {}", metric.name(), labels.join(" "), point.value()));
                }
            } else {
                counted.push(metric.name().to_owned());
            }
        }
        Ok(())
    }
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

#[tokio::test]
async fn requests_failures_durations_and_connections_are_counted() {
    let counted = Counted::default();
    let provider =
        SdkMeterProvider::builder().with_reader(PeriodicReader::builder(counted.clone()).build()).build();
    opentelemetry::global::set_meter_provider(provider.clone());

    let nobody =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound");
    let web = TestUpstream::start(|_| async { Response::new(full("hello")) }).await;
    let frontend = frontend_to(Settings::default(), web.address).await;
    set_routes(&frontend, [up("web", "web.example", web.address), up("api", "api.example", nobody)]);
    for (host, status) in
        [("web.example", 200), ("web.example", 200), ("api.example", 502), ("other.example", 404)]
    {
        assert_eq!(get(frontend.address(), host, "/").await.0.status(), status);
    }
    for expected in [
        "loam_proxy_requests_total 2xx 2",
        "loam_proxy_requests_total 4xx 1",
        "loam_proxy_requests_total 5xx 1",
        "loam_proxy_upstream_failures_total connect 1",
        "loam_proxy_request_duration_seconds",
        "loam_proxy_client_connections",
    ] {
        testkit::eventually(expected, async || {
            counted.0.lock().expect("never poisoned").clear();
            provider.force_flush().expect("the exporter never fails");
            counted.0.lock().expect("never poisoned").iter().any(|line| line == expected)
        })
        .await;
    }
}
