//! Who may open a repository, and who may only store.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::place::{Ended, MIB, Place, ended, text};

impl Place {
    fn with(&self, option: &str, file: &str, command: &str, arguments: &[&str]) -> Ended {
        let (store, file) = (self.store(), self.arg(file));
        let access = ["--json", "--store", &store, option, &file];
        ended(self.bare(command, &[&access[..], arguments].concat()))
    }
}

#[test]
fn keys_are_added_listed_used_and_removed() {
    let place = Place::with_repository();
    place.write_secret("second", b"another phrase\n");
    let added = place.ask("keys add", &["--new-passphrase-file", "second", "--label", "for the safe"]);
    let listed = place.ask("keys list", &[]);
    let keys = listed["keys"].as_array().unwrap();
    assert_eq!((keys.len(), &keys[1]["label"]), (2, &"for the safe".into()));
    let first = text(&keys[0]["id"]);
    assert_eq!(keys[0]["in_use"], true);
    place.ask("keys label", &[&first, "on paper"]);
    assert_eq!(place.ask("keys list", &[])["keys"][0]["label"], "on paper");
    let refused = place.run("keys label", &[&first, "two\nlines", "--json"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert_eq!(place.with("--passphrase-file", "second", "info", &[]).json_of(0)["keys"], 2);

    // The one in use goes only with a proof of another.
    let refused = place.run("keys remove", &[&first, "--json"]).json_of(3);
    assert_eq!(refused["error"]["kind"], "key_needed");
    place.ask("keys remove", &[&first, "--other-passphrase-file", "second"]);
    assert_eq!(place.run("info", &["--json"]).json_of(3)["error"]["kind"], "wrong_secret");
    let last = text(&added["id"]);
    let refused = place.with("--passphrase-file", "second", "keys remove", &[&last]).json_of(3);
    assert_eq!(refused["error"]["kind"], "key_needed");
    assert_eq!(place.with("--passphrase-file", "second", "keys rotate", &[]).json_of(0)["outcome"], "ok");
}

#[test]
fn a_write_only_key_stores_and_reads_nothing_back() {
    let place = Place::with_repository();
    place.write_disk("disk", 8 * MIB, 11);
    let made = ended(place.bare("keys generate-identity", &["host.key"])).text();
    let mode = fs::metadata(place.path("host.key")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    assert_eq!(
        ended(place.bare("keys generate-identity", &["host.key"])).code,
        Some(1),
        "never written over"
    );
    place.ask("keys add", &["--recipient", made.trim(), "--write-only"]);

    let host =
        |command: &str, arguments: &[&str]| place.with("--identity-file", "host.key", command, arguments);
    assert_eq!(host("info", &[]).json_of(0)["can_read"], false);
    host("backup", &["--machine", "web", "--disk", "vda=disk"]).json_of(0);
    for (command, arguments) in [
        ("restore", &["latest", "--disk", "vda=back"][..]),
        ("restore", &["latest", "--definition", "back"]),
        ("verify", &["--all"]),
        ("keys rotate", &[]),
        ("extract", &["latest", "--disk", "vda", "/etc/fstab", "--output", "back"]),
    ] {
        let refused = host(command, arguments).json_of(3);
        assert_eq!(refused["error"]["kind"], "write_only", "{command}: {refused}");
    }
    assert!(!place.path("back").exists());
    place.run("restore", &["latest", "--disk", "vda=back"]).text();
}
