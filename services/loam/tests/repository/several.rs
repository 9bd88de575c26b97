//! A backup that goes to two places, and what happens when one of them is away.

use std::fs;

use serde_json::Value;

use crate::place::{Ended, MIB, Place, ended, text};

/// A place with two repositories.
fn with_two() -> Place {
    let place = Place::with_repository();
    place.write_secret("other", b"another horse\n");
    let second = second_of(&place);
    let init = ["--store", &second, "--passphrase-file", "other"];
    Ended::from(place.bare("init", &init).output().expect("it runs")).text();
    place
}

fn second_of(place: &Place) -> String {
    format!("file://{}", place.arg("second"))
}

/// Backs the disk up to both.
fn back_up(place: &Place) -> Ended {
    let second = second_of(place);
    let to = ["--to", &second, "--to-passphrase-file", "other"];
    place.run("backup", &[&["--machine", "web", "--disk", "vda=disk", "--json"][..], &to].concat())
}

fn ids_in_second(place: &Place) -> Vec<Value> {
    let second = second_of(place);
    let listed = place.bare("snapshots", &["--store", &second, "--passphrase-file", "other", "--json"]);
    ids(&ended(listed).json_of(0))
}

fn ids(listed: &Value) -> Vec<Value> {
    listed["snapshots"].as_array().expect("a list").iter().map(|snapshot| snapshot["id"].clone()).collect()
}

#[test]
fn a_backup_goes_to_two_places_and_what_stood_in_for_one_that_was_away_is_copied_to_first() {
    let place = with_two();
    place.write_disk("disk", 12 * MIB, 1);
    let first = back_up(&place).json_of(0);
    assert_eq!(first["stored_in"], serde_json::json!([place.store(), second_of(&place)]));
    assert_eq!(ids(&place.ask("snapshots", &[])), ids_in_second(&place));

    // The first is away, as when its disk is not mounted.
    fs::rename(place.path("store"), place.path("away")).unwrap();
    let content = place.write_disk("disk", 12 * MIB, 2);
    let alone = back_up(&place).json_of(6);
    assert_eq!(alone["stored_in"], serde_json::json!([second_of(&place)]));
    assert_eq!(alone["snapshot"]["stored_as_failover"], true);
    let warning = text(&alone["warnings"][0]);
    assert!(warning.contains("is not in") && warning.contains(&place.store()), "{warning}");
    assert!(!place.path("store").exists(), "a repository is never made by a backup");

    fs::rename(place.path("away"), place.path("store")).unwrap();
    place.write_disk("disk", 12 * MIB, 3);
    let third = back_up(&place).json_of(0);
    let id = text(&alone["snapshot"]["id"]);
    assert_eq!(third["copied_to_first"], serde_json::json!([id]));
    assert_eq!(ids(&place.ask("snapshots", &[])), ids_in_second(&place), "both have the same snapshots");
    place.ask("restore", &[&id, "--disk", "vda=back"]);
    assert_eq!(fs::read(place.path("back")).unwrap(), content);
    let again = back_up(&place).json_of(0);
    assert_eq!(again["copied_to_first"], serde_json::json!([]));

    // The second is away.
    fs::rename(place.path("second"), place.path("away")).unwrap();
    let alone = back_up(&place).json_of(6);
    assert_eq!(alone["stored_in"], serde_json::json!([place.store()]));
    assert_eq!(alone["snapshot"]["stored_as_failover"], false);
    fs::rename(place.path("store"), place.path("away too")).unwrap();
    let nowhere = back_up(&place).json_of(1);
    assert_eq!(nowhere["error"]["kind"], "no_repository");
}

#[test]
fn a_repository_that_refuses_us_is_not_gone_around() {
    let place = with_two();
    place.write_disk("disk", 6 * MIB, 1);
    fs::write(place.path("passphrase"), "a wrong one\n").unwrap();
    let refused = back_up(&place).json_of(3);
    assert_eq!(refused["error"]["kind"], "wrong_secret");
    assert_eq!(ids_in_second(&place), Vec::<Value>::new());
    fs::write(place.path("passphrase"), "correct horse battery staple\n").unwrap();
    fs::write(place.path("other"), "a wrong one\n").unwrap();
    let first_alone = back_up(&place).json_of(6);
    assert_eq!(first_alone["stored_in"], serde_json::json!([place.store()]), "the second costs no backup");
    let without_key =
        place.run("backup", &["--machine", "web", "--disk", "vda=disk", "--to", "file:///nowhere"]);
    assert_eq!(without_key.code, Some(2), "{}", without_key.stderr);
}
