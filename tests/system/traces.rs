//! One trace a request: from the scheduler through backup to provisioner and store, by ids, over real OTLP.

use std::collections::BTreeSet;

use system_tests::{Collector, SpanSeen, World, WorldOptions};
use testkit::eventually_some;

use crate::provision::grow_web;

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_backup_is_one_trace_across_all_its_services() {
    let collector = Collector::open().await;
    let environment = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT".to_string(), collector.endpoint()),
        ("OTEL_BSP_SCHEDULE_DELAY".to_string(), "200".to_string()),
    ];
    let world = World::start(WorldOptions { environment, ..WorldOptions::default() }).await;
    grow_web(&world).await;
    world.loam_json(&["schedule", "add", "often", "--cron", "*/3 * * * * *", "--backup", "web"]);

    let wanted = ["loam-scheduler", "loam-backup", "loam-provisioner"];
    let trace = eventually_some("a whole trace has arrived", testkit::PATIENCE, async || {
        let spans = collector.spans();
        let roots = spans.iter().filter(|span| span.service == "loam-scheduler" && span.parent.is_empty());
        roots.map(|root| of_trace(&spans, &root.trace)).find(|trace| {
            let services: BTreeSet<&str> = trace.iter().map(|span| span.service.as_str()).collect();
            let sealed = trace.iter().any(|span| span.name == "announce");
            sealed && wanted.iter().all(|service| services.contains(service)) && whole(trace)
        })
    })
    .await;

    let named = |name: &str| trace.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no span {name}"));
    let root = named("scheduled_backup");
    assert!(root.parent.is_empty());
    // Every hop's chain of parents leads back to the scheduler's root.
    for (service, name) in [
        ("loam-backup", "start_backup"),
        ("loam-provisioner", "open_disks"),
        ("loam-provisioner", "close_disks"),
        ("loam-backup", "copy"),
        ("loam-backup", "seal"),
    ] {
        let span = trace.iter().find(|span| span.service == service && span.name == name);
        let span = span.unwrap_or_else(|| panic!("{service} has no span {name}: {trace:#?}"));
        assert!(leads_to(&trace, span, root), "{service} {name} does not lead to the root");
    }
    assert!(trace.iter().any(|span| span.name.starts_with("store ")), "no span of the store: {trace:#?}");
}

fn of_trace(spans: &[SpanSeen], trace: &str) -> Vec<SpanSeen> {
    spans.iter().filter(|span| span.trace == trace).cloned().collect()
}

/// Every parent that is named has arrived too.
fn whole(trace: &[SpanSeen]) -> bool {
    let ids: BTreeSet<&str> = trace.iter().map(|span| span.span.as_str()).collect();
    trace.iter().all(|span| span.parent.is_empty() || ids.contains(span.parent.as_str()))
}

fn leads_to(trace: &[SpanSeen], from: &SpanSeen, root: &SpanSeen) -> bool {
    let mut at = from;
    for _ in 0..trace.len() {
        if at.span == root.span {
            return true;
        }
        match trace.iter().find(|span| span.span == at.parent) {
            Some(parent) => at = parent,
            None => return false,
        }
    }
    false
}
