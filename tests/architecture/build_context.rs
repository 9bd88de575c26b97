//! The container image is built from all files that cargo needs, and from nothing secret.
//!
//! ```text
//!   .dockerignore --parse--> rules --+
//!                                    +--> is this file sent to the builder?
//!   members' sources, manifests, ----+
//!   files they include
//! ```
//!
//! Docker is not needed: [`Rules`] follows its documented rules. The last rule that matches a path, or a folder above it,
//! decides; `!` includes again; `*` and `?` stay within a folder's name; `**` is any number of folders.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::sources::{files_under, is_build_output, metadata, text_of, workspace};

/// A parsed `.dockerignore`.
struct Rules(Vec<Rule>);

struct Rule {
    /// `!`: includes again what rules above left out.
    includes: bool,
    /// The pattern, folder by folder.
    pattern: Vec<String>,
}

impl Rules {
    fn parse(text: &str) -> Rules {
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim);
        Rules(lines.filter(|line| !line.is_empty()).map(Rule::parse).collect())
    }

    /// Does the builder get this path, relative to the workspace?
    fn include(&self, path: &str) -> bool {
        let path: Vec<&str> = path.split('/').collect();
        self.0.iter().rfind(|rule| rule.matches_or_holds(&path)).is_none_or(|rule| rule.includes)
    }
}

impl Rule {
    fn parse(line: &str) -> Rule {
        let (includes, pattern) = match line.strip_prefix('!') {
            Some(rest) => (true, rest.trim()),
            None => (false, line),
        };
        let pattern: Vec<String> =
            pattern.split('/').filter(|name| !name.is_empty() && *name != ".").map(str::to_string).collect();
        for name in &pattern {
            let plain = name == "**" || !(name.contains("**") || name.contains(['[', '\\']) || name == "..");
            assert!(plain, "{line}: this test does not know what Docker makes of `{name}`");
        }
        Rule { includes, pattern }
    }

    /// The path itself, or a folder above it.
    fn matches_or_holds(&self, path: &[&str]) -> bool {
        (1..=path.len()).any(|depth| path_matches(&self.pattern, &path[..depth]))
    }
}

fn path_matches(pattern: &[String], path: &[&str]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((first, [])) if first == "**" => !path.is_empty(),
        Some((first, rest)) if first == "**" => {
            (0..=path.len()).any(|skipped| path_matches(rest, &path[skipped..]))
        }
        Some((first, rest)) => path
            .split_first()
            .is_some_and(|(name, below)| name_matches(first, name) && path_matches(rest, below)),
    }
}

/// `*` is any number of characters, `?` is one.
fn name_matches(pattern: &str, name: &str) -> bool {
    let mut after = name.chars();
    match pattern.chars().next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = &pattern[1..];
            name.char_indices().any(|(at, _)| name_matches(rest, &name[at..])) || name_matches(rest, "")
        }
        Some('?') => after.next().is_some() && name_matches(&pattern[1..], after.as_str()),
        Some(character) => {
            after.next() == Some(character) && name_matches(&pattern[character.len_utf8()..], after.as_str())
        }
    }
}

/// What `cargo build` reads, relative to the workspace: manifests and sources of all members, and what these include.
fn needed() -> BTreeSet<String> {
    let mut found = BTreeSet::from(["Cargo.toml".to_string(), "Cargo.lock".to_string()]);
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        let folder = package.manifest_path.parent().expect("a manifest lies in a folder").as_std_path();
        // A folder with a manifest is another package: a member has its own turn, others are not built.
        let enter = |path: &Path| !is_build_output(path) && !path.join("Cargo.toml").exists();
        let wanted = |path: &Path| {
            path.extension().is_some_and(|extension| extension == "rs") || path.ends_with("Cargo.toml")
        };
        for file in files_under(folder.to_path_buf(), &enter, &wanted) {
            if file.extension().is_some_and(|extension| extension == "rs") {
                found.extend(included_by(&file, folder).iter().map(|path| relative(path)));
            }
            found.insert(relative(&file));
        }
    }
    found
}

/// The files that a source names to be compiled in.
fn included_by(file: &Path, package: &Path) -> Vec<PathBuf> {
    let text = text_of(file);
    let mut found = Vec::new();
    for name in ["include", "include_str", "include_bytes"] {
        for (at, opening) in text.match_indices(&format!("{name}!(")) {
            if text[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
                continue;
            }
            let argument = text[at + opening.len()..].trim_start();
            let from_package = "concat!(env!(\"CARGO_MANIFEST_DIR\"),";
            let (folder, rest) = match argument.strip_prefix(from_package) {
                Some(rest) => (package, rest.trim_start()),
                None => (file.parent().expect("a file lies in a folder"), argument),
            };
            let path = rest.strip_prefix('"').and_then(|rest| rest.split('"').next());
            let path = path.unwrap_or_else(|| panic!("{}: which file does {name} name?", file.display()));
            found.push(folder.join(path.trim_start_matches('/')));
        }
    }
    found
}

/// Relative to the workspace, without `..`.
fn relative(path: &Path) -> String {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    let inside = plain.strip_prefix(workspace()).unwrap_or_else(|_| panic!("{} is outside", path.display()));
    inside.to_str().expect("paths of the workspace are text").to_string()
}

fn left_out(rules: &Rules) -> Vec<String> {
    needed().into_iter().filter(|path| !rules.include(path)).collect()
}

#[test]
fn the_image_is_built_from_every_file_that_cargo_needs() {
    let rules = Rules::parse(&text_of(&workspace().join(".dockerignore")));
    let needed = needed();
    let missing: Vec<&String> = needed.iter().filter(|path| !workspace().join(path).exists()).collect();
    assert!(missing.is_empty(), "these files are named and do not exist: {missing:#?}");
    assert!(needed.len() > 300, "only {} files were found", needed.len());
    let left_out = left_out(&rules);
    assert!(left_out.is_empty(), ".dockerignore leaves out what cargo needs: {left_out:#?}");
}

#[test]
fn secrets_and_build_output_are_not_sent_to_the_builder() {
    let rules = Rules::parse(&text_of(&workspace().join(".dockerignore")));
    for path in [
        "deploy/secrets/keys/operator.nk",
        "deploy/secrets/s3.secret",
        "target/debug/loam",
        "services/backup/repository/fuzz/target/debug/read_pack",
        ".git/config",
    ] {
        assert!(!rules.include(path), "{path} is sent to the builder");
    }
}

#[test]
fn a_pattern_that_once_left_out_sources_is_found() {
    let rules = Rules::parse("*\n!Cargo.toml\n!Cargo.lock\n!services\n!shared\n!tests\n**/target\n");
    let left_out = left_out(&rules);
    assert!(!left_out.is_empty(), "a module named target is left out");
    assert!(left_out.iter().all(|path| path.contains("/target/")), "{left_out:#?}");
}

#[test]
fn rules_are_those_of_docker() {
    let cases: [(&str, &str, bool); 22] = [
        ("", "a", true),
        ("a", "a", false),
        ("a", "a/b/c", false),
        ("a", "b/a", true),
        ("/a/", "a/b", false),
        ("./a", "a", false),
        ("# a", "a", true),
        ("*", "a/b", false),
        ("*/b", "a/b/c", false),
        ("*/b", "b", true),
        ("*.rs", "a/b.rs", true),
        ("**/*.rs", "a/b/c.rs", false),
        ("**/*.rs", "c.rs", false),
        ("**/target", "x/src/target/mod.rs", false),
        ("a/**", "a/b/c", false),
        ("a/**/c", "a/c", false),
        ("a?c", "abc", false),
        ("a?c", "ac", true),
        ("*\n!a", "a/b", true),
        ("*\n!a\na/b", "a/b/c", false),
        ("a/b\n!a", "a/b", true),
        ("*\n!*/keep\n", "x/keep/y", true),
    ];
    for (text, path, included) in cases {
        assert_eq!(Rules::parse(text).include(path), included, "{path} under {text:?}");
    }
}
