//! Maintenance of a repository: holds, forget, collect, verify, copy.

use std::fs;
use std::path::{Path, PathBuf};

use crate::place::{MIB, Place, text};

#[test]
fn rules_are_shown_first_and_then_applied_and_the_space_is_freed() {
    let place = Place::with_repository();
    let mut ids = Vec::new();
    for seed in 21..24 {
        place.write_disk("disk", 8 * MIB, seed);
        ids.push(place.back_up("web", "disk"));
    }
    place.ask("hold", &[&ids[0], "--reason", "the auditors are here"]);
    assert_eq!(place.ask("holds", &[])["holds"][0]["reason"], "the auditors are here");
    let held = place.run("forget", &[&ids[0], "--json"]).json_of(3);
    assert_eq!(held["error"]["kind"], "held");
    place.run("forget", &[&ids[1], &ids[0], "--json"]).json_of(3);
    assert_eq!(place.ask("info", &[])["snapshots"], 3, "nothing is forgotten where one of them is held");

    let rules = ["--keep-last", "1", "--keep-minimum", "1"];
    let preview = place.ask("forget", &[&rules[..], &["--dry-run"]].concat());
    assert_eq!(preview["snapshots"], serde_json::json!([ids[1]]), "{preview}");
    assert_eq!(preview["plan"]["machines"][0]["snapshots"][2]["reasons"][0]["because"], "held");
    assert_eq!(place.ask("info", &[])["snapshots"], 3);
    let shown = place.run("forget", &rules).text();
    assert!(shown.contains("keep 2, forget 1"), "{shown}");
    place.ask("release", &[&ids[0]]);
    place.ask("forget", &[&ids[0][..20]]);

    let before = place.ask("info", &[])["stored_bytes"].as_u64().unwrap();
    let now = ["--pack-age-min", "0s"];
    let plan = place.ask("collect", &[&now[..], &["--dry-run"]].concat());
    assert!(plan["packs_condemned"].as_u64().unwrap() > 0, "{plan}");
    assert_eq!(place.ask("info", &[])["stored_bytes"], before);
    let done = place.ask("collect", &now);
    assert!(done["packs_deleted"].as_u64().unwrap() > 0, "{done}");
    assert!(place.ask("info", &[])["stored_bytes"].as_u64().unwrap() < before / 2);
    assert_eq!(place.ask("verify", &["--all"])["problems_total"], 0);
}

#[test]
fn damage_is_found_and_the_command_fails_with_a_list() {
    let place = Place::with_repository();
    place.write_disk("disk", 8 * MIB, 31);
    let id = place.back_up("web", "disk");
    assert_eq!(place.ask("verify", &[&id])["problems_total"], 0);
    assert_eq!(place.ask("verify", &["--bytes-max", "1G", "--not-verified-within", "30d"])["outcome"], "ok");
    let largest = largest_file(&place.path("store"));
    let mut pack = fs::read(&largest).unwrap();
    pack[1000] ^= 1;
    fs::remove_file(&largest).unwrap();
    fs::write(&largest, pack).unwrap();
    let found = place.run("verify", &["--all", "--json"]).json_of(1);
    assert_eq!(found["outcome"], "failed");
    assert!(found["problems_total"].as_u64().unwrap() > 0 && found.get("error").is_none(), "{found}");
    let shown = place.run("verify", &["latest"]);
    assert!(shown.code == Some(1) && shown.stderr.contains("problems were found"), "{}", shown.stderr);

    // Out of the way, it is no loss for long: the disk is still there.
    let put_away = place.run("verify", &["--all", "--quarantine", "--json"]).json_of(1);
    assert_eq!(put_away["quarantine"]["packs"].as_array().unwrap().len(), 1, "{put_away}");
    place.back_up("web", "disk");
    assert_eq!(place.ask("verify", &["--all"])["problems_total"], 0);
}

/// The largest file of a store: a pack.
pub(crate) fn largest_file(folder: &Path) -> PathBuf {
    let mut todo = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(folder).expect("listed") {
            let path = entry.expect("listed").path();
            if path.is_dir() { todo.push(path) } else { files.push(path) }
        }
    }
    let bytes = |path: &PathBuf| fs::metadata(path).expect("there").len();
    files.into_iter().max_by_key(bytes).expect("a store has files")
}

#[test]
fn a_lost_index_is_made_anew() {
    let place = Place::with_repository();
    let content = place.write_disk("disk", 8 * MIB, 32);
    place.back_up("web", "disk");
    fs::remove_dir_all(place.path("store/index")).unwrap();
    fs::remove_dir_all(place.path("cache")).unwrap();
    assert_ne!(place.run("restore", &["latest", "--disk", "vda=back"]).code, Some(0));
    let rebuilt = place.ask("rebuild-index", &[]);
    assert!(rebuilt["blobs"].as_u64().unwrap() > 0, "{rebuilt}");
    place.run("restore", &["latest", "--disk", "vda=back"]).text();
    assert_eq!(fs::read(place.path("back")).unwrap(), content);
}

#[test]
fn snapshots_are_copied_to_a_second_repository_once() {
    let (place, other) = (Place::with_repository(), Place::with_repository());
    let content = place.write_disk("disk", 8 * MIB, 33);
    let id = place.back_up("web", "disk");
    let (to, secret) = (other.store(), other.arg("passphrase"));
    let there = ["--to", &to, "--to-passphrase-file", &secret];
    let copied = place.ask("copy", &[&there[..], &["--all", "--machine", "web"]].concat());
    assert_eq!(text(&copied["copied"][0]), id);
    let again = place.ask("copy", &[&there[..], &["latest"]].concat());
    assert_eq!(text(&again["already_there"][0]), id);
    other.run("restore", &[&id, "--disk", "vda=back"]).text();
    assert_eq!(fs::read(other.path("back")).unwrap(), content);
}
