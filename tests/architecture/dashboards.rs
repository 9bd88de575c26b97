//! Dashboards, alerts and code agree: what is shown is measured, what is measured is explained.

use std::collections::BTreeSet;
use std::path::Path;

use crate::sources::{files_under, text_of, workspace};

/// Words that begin as our metrics do.
fn metric_words(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let services = ["provisioner", "backup", "proxy", "scheduler", "upgrade", "supervisor"];
    let ours = services.map(|service| format!("loam_{service}_"));
    words
        .filter(|word| ours.iter().any(|start| word.starts_with(start.as_str())))
        .map(str::to_string)
        .collect()
}

/// The metric's name without what Prometheus adds to a histogram's.
fn without_suffix(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

fn everywhere(_: &Path) -> bool {
    true
}

fn declared() -> BTreeSet<String> {
    let files = files_under(workspace().join("services"), &everywhere, &|path| path.ends_with("metrics.rs"));
    assert!(files.len() >= 3, "the services declare metrics in metrics.rs: {files:?}");
    files.iter().flat_map(|path| metric_words(&text_of(path))).collect()
}

#[test]
fn every_metric_of_a_dashboard_or_an_alert_is_declared_in_the_code() {
    let declared = declared();
    let shown = files_under(workspace().join("observability"), &everywhere, &|path| {
        path.extension().is_some_and(|e| e == "json" || e == "yaml" || e == "yml")
    });
    let mut checked = 0;
    for path in shown {
        for word in metric_words(&text_of(&path)) {
            checked += 1;
            let known = declared.contains(&word) || declared.contains(without_suffix(&word));
            assert!(known, "{} shows {word}, which nothing measures", path.display());
        }
    }
    assert!(checked > 10, "dashboards and alerts name metrics");
}

#[test]
fn every_declared_metric_is_explained() {
    let page = text_of(&workspace().join("observability/README.md"));
    let missing: Vec<String> = declared().into_iter().filter(|name| !page.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "observability/README.md does not explain {missing:#?}");
}
