//! Every source file opens by saying what it is, and nothing is left unfinished.

use std::path::{Path, PathBuf};

use crate::sources::{files_under, is_build_output, text_of, workspace};

pub(crate) fn sources() -> Vec<PathBuf> {
    let enter = |path: &Path| !is_build_output(path) && !path.ends_with("fuzz");
    let is_source = |path: &Path| path.extension().is_some_and(|extension| extension == "rs");
    let folders = ["shared", "services", "tests"].map(|name| workspace().join(name));
    let found: Vec<_> =
        folders.into_iter().flat_map(|folder| files_under(folder, &enter, &is_source)).collect();
    assert!(found.len() > 50, "the sources were found");
    found
}

#[test]
fn every_file_opens_by_saying_what_it_is() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|path| !is_test_of_its_neighbour(path))
        .filter(|path| !text_of(path).starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "no `//!` at the top of {silent:#?}");
}

/// `tests.rs` and `x_tests.rs` belong to the page of the file beside them.
fn is_test_of_its_neighbour(path: &Path) -> bool {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    stem == "tests" || stem.ends_with("_tests")
}

#[test]
fn nothing_unfinished_is_left() {
    let marks = ["todo!(", "unimplemented!(", "FIXME", "XXX", "To be written"];
    let mut left = Vec::new();
    for path in sources() {
        if path.ends_with("tests/architecture/pages.rs") {
            continue;
        }
        let text = text_of(&path);
        let found = marks.iter().filter(|mark| text.contains(**mark));
        left.extend(found.map(|mark| format!("{}: {mark}", path.display())));
    }
    assert!(left.is_empty(), "{left:#?}");
}
