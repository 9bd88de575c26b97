//! Dashboards, alerts and code agree: what is shown is measured, what is measured is explained.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the workspace").to_path_buf()
}

fn files_under(folder: PathBuf, wanted: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let (mut todo, mut found) = (vec![folder], Vec::new());
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).expect("the workspace can be read") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                todo.push(path);
            } else if wanted(&path) {
                found.push(path);
            }
        }
    }
    found
}

/// Words that begin as our metrics do.
fn metric_words(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = ["loam_provisioner_", "loam_backup_", "loam_proxy_", "loam_scheduler_", "loam_upgrade_"];
    words.filter(|word| ours.iter().any(|start| word.starts_with(start))).map(str::to_string).collect()
}

/// What Prometheus adds to a histogram's name.
fn plain(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

fn declared() -> BTreeSet<String> {
    let files = files_under(workspace().join("services"), &|path| path.ends_with("metrics.rs"));
    assert!(files.len() >= 3, "the services declare metrics in metrics.rs: {files:?}");
    files.iter().flat_map(|path| metric_words(&fs::read_to_string(path).expect("readable"))).collect()
}

#[test]
fn every_metric_that_is_shown_or_alarmed_on_is_declared_in_the_code() {
    let declared = declared();
    let shown = files_under(workspace().join("observability"), &|path| {
        path.extension().is_some_and(|e| e == "json" || e == "yaml" || e == "yml")
    });
    let mut checked = 0;
    for path in shown {
        for word in metric_words(&fs::read_to_string(&path).expect("readable")) {
            checked += 1;
            let known = declared.contains(&word) || declared.contains(plain(&word));
            assert!(known, "{} shows {word}, which nothing measures", path.display());
        }
    }
    assert!(checked > 10, "dashboards and alerts were looked at");
}

#[test]
fn every_declared_metric_is_explained() {
    let page = fs::read_to_string(workspace().join("observability/README.md")).expect("there is a page");
    let missing: Vec<String> = declared().into_iter().filter(|name| !page.contains(name.as_str())).collect();
    assert!(missing.is_empty(), "observability/README.md does not explain {missing:#?}");
}
