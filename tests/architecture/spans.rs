//! The page lists every span of the code, and none that is not there.

use std::collections::BTreeSet;
use std::path::Path;

use crate::sources::{files_under, is_build_output, text_of, workspace};

/// The names of the spans that a source opens: by a macro, or by an attribute of a function.
fn spans_in(text: &str, path: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for (index, opener) in openers(text) {
        let arguments = &text[index..];
        let named = if opener == "instrument(" {
            arguments.split_once("name = \"").filter(|(before, _)| !before.contains(')'))
        } else {
            arguments.split_once('"').filter(|(before, _)| !before.contains(')'))
        };
        let name = named.and_then(|(_, rest)| rest.split('"').next());
        let line = text[..index].lines().count();
        names.push(name.unwrap_or_else(|| panic!("{}:{line}: give the span a name", path.display())).into());
    }
    names
}

/// Where the arguments of each span begin.
fn openers(text: &str) -> Vec<(usize, &'static str)> {
    let found = ["_span!(", "[instrument(", "[tracing::instrument("].into_iter().flat_map(|opener| {
        let kind = if opener.ends_with("instrument(") { "instrument(" } else { "span" };
        text.match_indices(opener).map(move |(at, _)| (at + opener.len(), kind))
    });
    let bare = ["[instrument]", "[tracing::instrument]"];
    assert!(!bare.iter().any(|bare| text.contains(bare)), "an attribute without a name");
    found.collect()
}

fn opened() -> BTreeSet<String> {
    let tests =
        |folder: &Path| folder.ends_with("tests") || folder.ends_with("benches") || is_build_output(folder);
    let files = ["shared", "services"].into_iter().flat_map(|part| {
        files_under(workspace().join(part), &|folder| !tests(folder), &|path| {
            path.extension().is_some_and(|extension| extension == "rs")
        })
    });
    files.flat_map(|path| spans_in(&text_of(&path), &path)).collect()
}

/// The first column of the table of spans.
fn listed() -> BTreeSet<String> {
    let page = text_of(&workspace().join("observability/README.md"));
    let table = page.split("| span |").nth(1).expect("the page has a table of spans");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let names = rows.flat_map(|row| {
        let first = row.split('|').nth(1).unwrap_or_default();
        first.split('`').skip(1).step_by(2).map(str::to_string).collect::<Vec<_>>()
    });
    names.collect()
}

#[test]
fn the_page_of_spans_lists_those_that_the_code_opens_and_no_others() {
    let (opened, listed) = (opened(), listed());
    assert!(opened.len() > 20, "spans are found in the sources: {opened:?}");
    let unlisted: Vec<_> = opened.difference(&listed).collect();
    assert!(unlisted.is_empty(), "observability/README.md does not list {unlisted:?}");
    let gone: Vec<_> = listed.difference(&opened).collect();
    assert!(gone.is_empty(), "observability/README.md lists {gone:?}, which nothing opens");
}

#[test]
fn spans_are_found_however_they_are_opened() {
    let text = "info_span!(parent: None, \"worker\", otel.name = name); tracing::debug_span!(\n  \"a b\")\n\
                #[instrument(name = \"r.open\", skip_all)]\n#[tracing::instrument(level = \"debug\", name = \"x\")]";
    let found: BTreeSet<String> = spans_in(text, Path::new("a.rs")).into_iter().collect();
    assert_eq!(found, ["a b", "r.open", "worker", "x"].map(str::to_string).into());
}
