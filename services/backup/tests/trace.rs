//! A backup is one trace, from whoever asked to the store.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use contract::backup::{ListBackups, StartBackup};
use contract::operation::OperationState;
use opentelemetry::trace::{SpanId, TracerProvider};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use support::*;
use tracing::Instrument;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};

/// Keeps every span that ended.
#[derive(Clone, Debug, Default)]
struct Kept(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Kept {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().expect("nobody panics here").extend(batch);
        Ok(())
    }
}

#[actix::test]
async fn a_scheduled_backup_is_one_trace_from_the_asker_to_the_provisioner_and_the_store() {
    let kept = Kept::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(kept.clone()).build();
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("test"))
        .with_filter(EnvFilter::new("info"));
    let subscriber = tracing_subscriber::registry().with(spans);
    tracing::subscriber::set_global_default(subscriber).expect("the first");

    let folder = tempfile::tempdir().expect("a folder");
    let office = Office::open(folder.path(), shelf(folder.path()), Arc::new(RawDoors)).await;
    let image = folder.path().join("web.raw");
    raw_image(&image, 1, 4 << 20);
    office.provisioner.add_raw_vm(&vm("web"), &image);
    testkit::eventually("the store is open", async || {
        office.bus.call(&ListBackups::default(), DEADLINE).await.is_ok()
    })
    .await;

    let asker = tracing::info_span!("fire");
    let trace_id = telemetry::trace_id(&asker).expect("recorded");
    let start =
        StartBackup { vm: vm("web"), schedule: Some("nightly".parse().expect("a name")), operation_id: None };
    let begun = office.bus.call(&start, DEADLINE).instrument(asker).await.expect("begun");
    let report = office.ended(&begun).await;
    assert_eq!(report.state, OperationState::Done, "{:?}", report.reason);
    assert_eq!(report.trace_id.as_deref(), Some(trace_id.as_str()));

    // What happened, each as the way from the asker down; a dot stands for spans between.
    let wanted = [
        "fire > start_backup > start_backup > . > get_vm > get_vm",
        "fire > start_backup > start_backup > start_backup > queue > . > Take",
        "fire > start_backup > start_backup > start_backup > open_disks > open_disks > open_disks",
        "fire > start_backup > start_backup > start_backup > copy > repository.copy > . > store put",
        "fire > start_backup > start_backup > start_backup > close_disks > close_disks > close_disks",
        "fire > start_backup > start_backup > start_backup > seal > repository.seal > . > store create",
    ];
    let told = || {
        let spans = kept.0.lock().expect("nobody panics here");
        let paths = paths(&spans, &trace_id);
        wanted
            .iter()
            .find(|path| !paths.iter().any(|seen| fits(seen, path)))
            .map(|path| format!("{path}: {paths:#?}"))
    };
    // Spans are told of when they end, which the answer does not wait for.
    let all_told = async {
        while told().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, all_told).await.ok();
    assert_eq!(told(), None);
}

/// The way from the root to each span of a trace, by names.
fn paths(spans: &[SpanData], trace_id: &str) -> Vec<Vec<String>> {
    let of_trace = spans.iter().filter(|span| span.span_context.trace_id().to_string() == trace_id);
    let by_id: BTreeMap<_, _> = of_trace.map(|span| (span.span_context.span_id().to_bytes(), span)).collect();
    let way = |mut id: SpanId| {
        let mut names = Vec::new();
        while let Some(span) = by_id.get(&id.to_bytes()) {
            names.insert(0, span.name.to_string());
            id = span.parent_span_id;
        }
        names
    };
    by_id.values().map(|span| way(span.span_context.span_id())).collect()
}

/// Whether a way fits a pattern in which a dot stands for any spans, also none.
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
