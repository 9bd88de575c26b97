//! A backup is one trace, from the caller to the store.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::*;
use contract::backup::{ListBackups, StartBackup};
use contract::operation::OperationState;
use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tracing::Instrument;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};

/// Every span that ended.
#[derive(Clone, Debug, Default)]
struct Exported(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Exported {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().expect("no test panics while it holds the lock").extend(batch);
        Ok(())
    }
}

#[actix::test]
async fn a_scheduled_backup_is_one_trace_from_the_caller_to_the_provisioner_and_the_store() {
    let exported = Exported::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(exported.clone()).build();
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("test"))
        .with_filter(EnvFilter::new("info"));
    let subscriber = tracing_subscriber::registry().with(spans);
    tracing::subscriber::set_global_default(subscriber).expect("no subscriber was set before");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let service =
        TestService::open(folder.path(), repository_config(folder.path()), Arc::new(RawExports)).await;
    let image = folder.path().join("web.raw");
    raw_image(&image, 1, 4 << 20);
    service.provisioner.add_raw_vm(&vm("web"), &image);
    testkit::eventually("the store is open", async || {
        service.bus.call(&ListBackups::default(), DEADLINE).await.is_ok()
    })
    .await;

    let caller = tracing::info_span!("fire");
    let trace_id = telemetry::trace_id(&caller).expect("the span is recorded");
    let start = StartBackup {
        vm: vm("web"),
        schedule: Some("nightly".parse().expect("a valid name")),
        operation_id: None,
    };
    let begun = service.bus.call(&start, DEADLINE).instrument(caller).await.expect("the command is accepted");
    let report = service.ended(&begun).await;
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    assert_eq!(report.trace_id.as_deref(), Some(trace_id.as_str()));

    // What happened, each as the path from the caller down; a dot is any number of spans.
    let wanted = [
        "fire > start_backup > start_backup > . > get_vm > get_vm",
        "fire > start_backup > start_backup > start_backup > queue > . > Take",
        "fire > start_backup > start_backup > start_backup > open_disks > open_disks > open_disks",
        "fire > start_backup > start_backup > start_backup > copy > repository.copy > . > store put",
        "fire > start_backup > start_backup > start_backup > close_disks > close_disks > close_disks",
        "fire > start_backup > start_backup > start_backup > seal > repository.seal > . > store create",
    ];
    let missing = || {
        let spans = exported.0.lock().expect("no test panics while it holds the lock");
        let paths = paths(&spans, &trace_id);
        wanted
            .iter()
            .find(|path| !paths.iter().any(|seen| fits(seen, path)))
            .map(|path| format!("{path}: {paths:#?}"))
    };
    // A span is exported when it ends, which the answer does not wait for.
    let all_exported = async {
        while missing().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, all_exported).await.ok();
    assert_eq!(missing(), None);
}

/// The path from the root to each span of a trace, by names.
fn paths(spans: &[SpanData], trace_id: &str) -> Vec<Vec<String>> {
    let of_trace = spans.iter().filter(|span| span.span_context.trace_id().to_string() == trace_id);
    let by_id: BTreeMap<_, _> = of_trace.map(|span| (span.span_context.span_id().to_bytes(), span)).collect();
    let path = |mut id: SpanId| {
        let mut names = Vec::new();
        while let Some(span) = by_id.get(&id.to_bytes()) {
            names.insert(0, span.name.to_string());
            id = span.parent_span_id;
        }
        names
    };
    by_id.values().map(|span| path(span.span_context.span_id())).collect()
}

/// Whether a path fits a pattern in which a dot is any number of spans, also none.
fn fits(seen: &[String], pattern: &str) -> bool {
    fn rest(seen: &[String], pattern: &[&str]) -> bool {
        match pattern.split_first() {
            None => seen.is_empty(),
            Some((&".", more)) => (0..=seen.len()).any(|skip| rest(&seen[skip..], more)),
            Some((name, more)) => seen.first().is_some_and(|first| first == name) && rest(&seen[1..], more),
        }
    }
    rest(seen, &pattern.split(" > ").collect::<Vec<_>>())
}
