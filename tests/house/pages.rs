//! Every crate opens with a page, every folder of code says what it is, and nothing unfinished is left about.

use std::fs;
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests lie in the workspace").to_path_buf()
}

fn sources() -> Vec<PathBuf> {
    let mut todo = vec![workspace().join("shared"), workspace().join("services"), workspace().join("tests")];
    let mut found = Vec::new();
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).expect("the workspace can be read") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target" && name != "fuzz") {
                    todo.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 50, "the sources were found");
    found
}

#[test]
fn every_file_opens_by_saying_what_it_is() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|path| !is_test_of_its_neighbour(path))
        .filter(|path| !fs::read_to_string(path).expect("readable").starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "no `//!` at the top of {silent:#?}");
}

/// `tests.rs` and `x_tests.rs` belong to the page of the file beside them.
fn is_test_of_its_neighbour(path: &Path) -> bool {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    stem == "tests" || stem.ends_with("_tests")
}

#[test]
fn nothing_unfinished_is_left_about() {
    let marks = ["todo!(", "unimplemented!(", "FIXME", "XXX", "To be written"];
    let mut left = Vec::new();
    for path in sources() {
        if path.ends_with("tests/house/pages.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("readable");
        left.extend(
            marks
                .iter()
                .filter(|mark| text.contains(**mark))
                .map(|mark| format!("{}: {mark}", path.display())),
        );
    }
    assert!(left.is_empty(), "{left:#?}");
}
