//! Identifiers, wire names, metrics and help texts use the field's words: those of words.toml are not among them. The
//! list says what to write instead, and where an exception holds. Comments are for reviewers to judge.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proc_macro2::{TokenStream, TokenTree};
use serde::Deserialize;

use crate::pages::sources;
use crate::sources::{files_under, text_of, workspace};

#[derive(Deserialize)]
struct List {
    instead: BTreeMap<String, String>,
    #[serde(default)]
    exception: Vec<Exception>,
}

#[derive(Deserialize)]
struct Exception {
    word: String,
    #[serde(rename = "in")]
    path: String,
    reason: String,
}

impl List {
    fn read() -> List {
        let list: List =
            toml::from_str(include_str!("words.toml")).expect("words.toml is a list of words and exceptions");
        assert!(
            list.exception.iter().all(|exception| exception.reason.len() > 10),
            "an exception has a reason"
        );
        list
    }

    /// The forbidden words in a text, each with what to write instead.
    fn found_in(&self, path: &Path, text: &str) -> Vec<String> {
        let path = path.strip_prefix(workspace()).unwrap_or(path).display().to_string();
        let allowed = |word: &str| self.exception.iter().any(|e| e.word == word && path.starts_with(&e.path));
        parts(text)
            .into_iter()
            .filter(|part| !allowed(part))
            .filter_map(|part| {
                Some(format!("{path}: {text}: not \"{part}\" but \"{}\"", self.instead.get(&part)?))
            })
            .collect()
    }
}

/// The words of an identifier or a sentence, in lower case.
fn parts(text: &str) -> Vec<String> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    for character in text.chars() {
        if !character.is_alphanumeric() || (character.is_uppercase() && part.ends_with(char::is_lowercase)) {
            parts.push(std::mem::take(&mut part));
        }
        if character.is_alphanumeric() {
            part.push(character);
        }
    }
    parts.push(part);
    parts.into_iter().filter(|part| !part.is_empty()).map(|part| part.to_lowercase()).collect()
}

/// Every identifier of a source file, and every literal that names a metric. Comments and other literals are not.
fn names(tokens: TokenStream, found: &mut BTreeSet<String>) {
    for tree in tokens {
        match tree {
            TokenTree::Ident(name) => drop(found.insert(name.to_string())),
            TokenTree::Group(group) => names(group.stream(), found),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                if text.starts_with("\"loam_") {
                    found.insert(text.trim_matches('"').to_string());
                }
            }
            TokenTree::Punct(_) => {}
        }
    }
}

#[test]
fn identifiers_and_metrics_use_the_words_of_the_field() {
    let list = List::read();
    let mut wrong = Vec::new();
    for path in sources() {
        let tokens: TokenStream =
            text_of(&path).parse().unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut found = BTreeSet::new();
        names(tokens, &mut found);
        wrong.extend(found.iter().flat_map(|name| list.found_in(&path, name)));
        let file = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        wrong.extend(list.found_in(&path, &file));
    }
    assert!(wrong.is_empty(), "{} names:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn wire_names_use_the_words_of_the_field() {
    fn keys(value: &serde_json::Value, found: &mut BTreeSet<String>) {
        match value {
            serde_json::Value::Object(fields) => {
                for (key, value) in fields {
                    found.insert(key.clone());
                    keys(value, found);
                }
            }
            serde_json::Value::Array(values) => values.iter().for_each(|value| keys(value, found)),
            _ => {}
        }
    }
    let list = List::read();
    let is_json = |path: &Path| path.extension().is_some_and(|extension| extension == "json");
    let samples = files_under(workspace().join("shared/contract/wire"), &|_| true, &is_json);
    assert!(samples.len() > 50, "the golden samples were found");
    let mut wrong = Vec::new();
    for path in samples {
        let mut found = BTreeSet::from([path.file_stem().expect("a name").to_string_lossy().into_owned()]);
        keys(&serde_json::from_str(&text_of(&path)).expect("a sample is JSON"), &mut found);
        wrong.extend(found.iter().flat_map(|name| list.found_in(&path, name)));
    }
    for bucket in contract::Service::ALL.into_iter().flat_map(contract::bucket::of_service) {
        wrong.extend(list.found_in(Path::new("shared/contract/src/bucket.rs"), bucket.name));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn help_texts_use_the_words_of_the_field() {
    let list = List::read();
    let is_arguments =
        |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().contains("args"));
    let files = files_under(workspace().join("services/loam/src/cli"), &|_| true, &is_arguments);
    assert!(!files.is_empty(), "the command line's arguments were found");
    let mut wrong = Vec::new();
    for path in files {
        for line in text_of(&path).lines().filter_map(|line| line.trim().strip_prefix("///")) {
            wrong.extend(list.found_in(&path, line.trim()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn names_are_split_into_words() {
    assert_eq!(parts("DiskDoor"), ["disk", "door"]);
    assert_eq!(parts("door_of_NBDServer"), ["door", "of", "nbdserver"]);
    let list = List::read();
    assert_eq!(list.found_in(Path::new("x.rs"), "OpenDoor").len(), 1, "a forbidden word is found");
    assert!(list.found_in(Path::new("x.rs"), "outdoor_pool").is_empty());
}
