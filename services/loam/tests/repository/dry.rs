//! Dry runs show what a command would do, and change nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::place::{MIB, Place, ended, text};

/// Every file below a folder, with its content; the cache may change at any time.
fn everything(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("read").path();
        if path.ends_with("cache") {
            continue;
        }
        if path.is_dir() {
            found.extend(everything(&path));
        } else {
            found.insert(path.display().to_string(), fs::read(&path).expect("read"));
        }
    }
    found
}

#[test]
fn a_dry_run_of_any_command_shows_what_would_be_done_and_changes_nothing() {
    let place = Place::with_repository();
    place.write_secret("other", b"another horse\n");
    place.write_disk("disk", 8 * MIB, 1);
    let id = place.back_up("web", "disk");
    let held = place.back_up("web", "disk");
    place.ask("hold", &[&held, "--reason", "the auditors are here"]);
    let second = format!("file://{}", place.arg("second"));
    ended(place.bare("init", &["--store", &second, "--passphrase-file", "other"])).text();
    let key = text(&place.ask("keys add", &["--label", "laptop", "--new-passphrase-file", "other"])["id"]);
    place.write_disk("changed", 8 * MIB, 2);

    let to = ["--to", &second, "--to-passphrase-file", "other"];
    let before = everything(&place.path(""));
    for (command, arguments) in [
        ("backup", &["--machine", "web", "--disk", "vda=changed"][..]),
        ("backup", &[&["--machine", "web", "--disk", "vda=changed"][..], &to].concat()),
        ("hold", &[&id, "--reason", "for later"]),
        ("release", &[&held]),
        ("forget", &[&id]),
        ("forget", &["--keep-last", "1"]),
        ("collect", &["--pack-age-min", "0s"]),
        ("copy", &[&["--all"][..], &to].concat()),
        ("restore", &[&id, "--disk", "vda=back"]),
        ("rebuild-index", &[]),
        ("verify", &["--all", "--quarantine"]),
        ("keys add", &["--label", "x", "--new-passphrase-file", "other"]),
        ("keys remove", &[&key]),
        ("keys label", &[&key, "phone"]),
        ("keys rotate", &[]),
    ] {
        let answer = place.run(command, &[arguments, &["--dry-run", "--json"]].concat()).json_of(0);
        assert!(answer["dry_run"] == true || command == "verify", "{command}: {answer}");
        let after = everything(&place.path(""));
        let names = |of: &BTreeMap<String, Vec<u8>>| of.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&before), names(&after), "{command} {arguments:?}");
        assert!(before == after, "{command} {arguments:?}");
    }
    let third = format!("file://{}", place.arg("third"));
    let init = ["--store", &third, "--passphrase-file", "other", "--dry-run"];
    let shown = ended(place.bare("init", &init)).text();
    assert!(shown.contains("would initialize") && !place.path("third").exists(), "{shown}");
}

#[test]
fn a_dry_run_refuses_what_would_be_refused() {
    let place = Place::with_repository();
    let key = text(&place.ask("keys list", &[])["keys"][0]["id"]);
    assert_eq!(place.run("keys remove", &[&key, "--dry-run"]).code, Some(3), "the last key");
    assert_eq!(place.run("init", &["--dry-run"]).code, Some(1), "there is one already");
    assert_eq!(place.run("hold", &["nothing", "--reason", "x", "--dry-run"]).code, Some(1));
}
