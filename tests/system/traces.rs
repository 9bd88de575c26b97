//! One trace a request: from the scheduler through backup to provisioner and store, by ids, over real OTLP.

use std::collections::BTreeSet;

use system_tests::{Collector, Installation, InstallationOptions, ReceivedSpan};

use crate::provision::create_web;

const POLL_INTERVAL: std::time::Duration = std::time::Duration::from_millis(100);

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduled_backup_is_one_trace_across_all_its_services() {
    let collector = Collector::open().await;
    let environment = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT".to_string(), collector.endpoint()),
        ("OTEL_BSP_SCHEDULE_DELAY".to_string(), "200".to_string()),
    ];
    let installation =
        Installation::start(InstallationOptions { environment, ..InstallationOptions::default() }).await;
    create_web(&installation).await;
    installation.loam_json(&["schedule", "add", "often", "--cron", "*/3 * * * * *", "--backup", "web"]);

    let until = tokio::time::Instant::now() + testkit::WAIT_MAX;
    let trace = loop {
        let spans = collector.spans();
        let roots = spans.iter().filter(|span| span.service == "loam-scheduler" && span.name == "scheduled");
        let traces: Vec<Vec<ReceivedSpan>> = roots.map(|root| of_trace(&spans, &root.trace)).collect();
        match traces.iter().map(|trace| lacks(trace)).position(|lack| lack.is_none()) {
            Some(index) => break traces[index].clone(),
            None if tokio::time::Instant::now() < until => tokio::time::sleep(POLL_INTERVAL).await,
            None => {
                let missing: Vec<_> = traces.iter().map(|trace| lacks(trace)).collect();
                panic!("no whole trace among {}: {missing:#?} of {} spans", traces.len(), spans.len());
            }
        }
    };

    let named =
        |name: &str| trace.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no span {name}"));
    let root = named("scheduled");
    assert!(root.parent.is_empty());
    // The parents of every hop end at the scheduler's root.
    for (service, name) in [
        ("loam-backup", "start_backup"),
        ("loam-provisioner", "open_disks"),
        ("loam-provisioner", "close_disks"),
        ("loam-backup", "copy"),
        ("loam-backup", "seal"),
    ] {
        let span = trace.iter().find(|span| span.service == service && span.name == name);
        let span = span.unwrap_or_else(|| panic!("{service} has no span {name}: {trace:#?}"));
        assert!(descends_from(&trace, span, root), "{service} {name} does not descend from the root");
    }
    assert!(trace.iter().any(|span| span.name.starts_with("store ")), "no span of the store: {trace:#?}");
}

fn of_trace(spans: &[ReceivedSpan], trace: &str) -> Vec<ReceivedSpan> {
    spans.iter().filter(|span| span.trace == trace).cloned().collect()
}

/// What a trace still lacks: a service, the last step, or a parent that is named and has not arrived.
fn lacks(trace: &[ReceivedSpan]) -> Option<String> {
    let services: BTreeSet<&str> = trace.iter().map(|span| span.service.as_str()).collect();
    for wanted in ["loam-scheduler", "loam-backup", "loam-provisioner"] {
        if !services.contains(wanted) {
            return Some(format!("nothing of {wanted}"));
        }
    }
    // Each process sends its spans when it likes.
    for (service, last) in [("loam-backup", "seal"), ("loam-provisioner", "close_disks")] {
        if !trace.iter().any(|span| span.service == service && span.name == last) {
            return Some(format!("no {last} of {service} yet"));
        }
    }
    let ids: BTreeSet<&str> = trace.iter().map(|span| span.span.as_str()).collect();
    let orphan = trace.iter().find(|span| !span.parent.is_empty() && !ids.contains(span.parent.as_str()));
    orphan.map(|span| format!("the parent of {} {}", span.service, span.name))
}

fn descends_from(trace: &[ReceivedSpan], from: &ReceivedSpan, root: &ReceivedSpan) -> bool {
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
