//! Setting telemetry up, once a process.

use std::io::IsTerminal;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{KeyValue, global};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, MetricExporter, SpanExporter};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// The variable that names the collector (OpenTelemetry specification, OTLP exporter configuration).
const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// The variable that sets which log lines are shown.
const FILTER_VARIABLE: &str = "LOAM_LOG";
const FILTER_DEFAULT: &str =
    "info,async_nats=warn,hyper=warn,object_store=warn,opentelemetry=warn,opentelemetry_sdk=warn";
/// What reaches the collector as spans. Noise of libraries stays at home, and the exporter's own calls must.
const SPANS: &str = "info,hyper=off,hyper_util=off,reqwest=off,h2=off,opentelemetry=off,opentelemetry_sdk=off,async_nats=warn";
/// Metrics leave this often.
const METRIC_INTERVAL: Duration = Duration::from_secs(10);
/// How long the last batch may take at the end.
const FLUSH_MAX: Duration = Duration::from_secs(3);

/// Which process this is: becomes the resource of every span, metric and log record.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `loam-backup`.
    pub service: String,
    /// The semantic version.
    pub version: String,
    /// This run of it.
    pub instance: String,
    /// The host.
    pub host: String,
}

/// Telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The exporter cannot be built from the environment's settings.
    #[error("building the OTLP exporter from {ENDPOINT_VARIABLE}")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// The log filter cannot be read.
    #[error("reading the log filter {FILTER_VARIABLE}")]
    Filter(#[source] tracing_subscriber::filter::ParseError),
    /// Telemetry was set up before in this process.
    #[error("telemetry is set up already in this process")]
    AlreadyInitialized(#[source] tracing_subscriber::util::TryInitError),
}

/// Keeps the exporters; flush it at the end.
#[derive(Debug)]
pub struct Handle {
    exporters: Option<(SdkTracerProvider, SdkMeterProvider, SdkLoggerProvider)>,
}

/// Sets telemetry up for this process.
///
/// # Errors
/// When the exporter or the log filter cannot be made of the environment, or telemetry was set up before.
pub fn init(identity: &Identity) -> Result<Handle, InitError> {
    global::set_text_map_propagator(TraceContextPropagator::new());
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(text) => EnvFilter::try_new(text).map_err(InitError::Filter)?,
        Err(_) => EnvFilter::new(FILTER_DEFAULT),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .with_filter(filter);
    let resource = Resource::builder()
        .with_service_name(identity.service.clone())
        .with_attributes([
            KeyValue::new("service.version", identity.version.clone()),
            KeyValue::new("service.instance.id", identity.instance.clone()),
            KeyValue::new("host.name", identity.host.clone()),
        ])
        .build();
    let listening = std::env::var(ENDPOINT_VARIABLE).is_ok_and(|endpoint| !endpoint.is_empty());
    if !listening {
        // Trace ids still exist, so that operations and error answers can carry them; nothing leaves the process.
        let traces = SdkTracerProvider::builder().with_resource(resource).build();
        let spans = tracing_opentelemetry::layer()
            .with_tracer(traces.tracer("loam"))
            .with_filter(EnvFilter::new(SPANS));
        tracing_subscriber::registry()
            .with(lines)
            .with(spans)
            .try_init()
            .map_err(InitError::AlreadyInitialized)?;
        return Ok(Handle { exporters: None });
    }
    let span_exporter = SpanExporter::builder().with_http().build().map_err(InitError::Exporter)?;
    let metric_exporter = MetricExporter::builder().with_http().build().map_err(InitError::Exporter)?;
    let log_exporter = LogExporter::builder().with_http().build().map_err(InitError::Exporter)?;
    let traces = SdkTracerProvider::builder()
        .with_resource(resource.clone())
        .with_batch_exporter(span_exporter)
        .build();
    let reader = PeriodicReader::builder(metric_exporter).with_interval(METRIC_INTERVAL).build();
    let metrics = SdkMeterProvider::builder().with_resource(resource.clone()).with_reader(reader).build();
    let logs = SdkLoggerProvider::builder().with_resource(resource).with_batch_exporter(log_exporter).build();
    global::set_tracer_provider(traces.clone());
    global::set_meter_provider(metrics.clone());
    let spans =
        tracing_opentelemetry::layer().with_tracer(traces.tracer("loam")).with_filter(EnvFilter::new(SPANS));
    let records = OpenTelemetryTracingBridge::new(&logs).with_filter(EnvFilter::new(SPANS));
    tracing_subscriber::registry()
        .with(lines)
        .with(spans)
        .with(records)
        .try_init()
        .map_err(InitError::AlreadyInitialized)?;
    Ok(Handle { exporters: Some((traces, metrics, logs)) })
}

impl Handle {
    /// Sends what is left and ends the exporters, in bounded time. Errors go to stderr: there is nowhere else.
    pub fn flush(self) {
        let Some((traces, metrics, logs)) = self.exporters else {
            return;
        };
        let ended = [
            ("traces", traces.shutdown_with_timeout(FLUSH_MAX)),
            ("metrics", metrics.shutdown_with_timeout(FLUSH_MAX)),
            ("logs", logs.shutdown_with_timeout(FLUSH_MAX)),
        ];
        for (what, outcome) in ended {
            if let Err(error) = outcome {
                eprintln!("the last {what} did not reach the collector: {error}");
            }
        }
    }
}
