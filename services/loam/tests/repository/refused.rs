//! What must not work ends with its own code, in a clear sentence, and writes nothing.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use crate::place::{Ended, Place, ended};

/// Code, kind and sentence of a command that failed.
fn failure(ended: &Ended) -> (i64, String, String) {
    let json = ended.json();
    assert_eq!(json["outcome"], "failed", "{json}");
    let error = &json["error"];
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    assert_eq!(error["exit_code"].as_i64(), ended.code.map(i64::from));
    (error["exit_code"].as_i64().expect("a number"), text("kind"), text("message"))
}

#[test]
fn only_init_makes_a_repository() {
    let place = Place::empty();
    for command in ["info", "snapshots", "keys list", "collect", "rebuild-index"] {
        let (code, kind, _) = failure(&place.run(command, &["--json"]));
        assert_eq!((code, kind.as_str()), (1, "no_repository"), "{command}");
    }
    assert!(!place.path("store").exists());
    fs::create_dir(place.path("store")).unwrap();
    let (code, kind, sentence) = failure(&place.run("backup", &["--machine", "w", "--stdin", "s", "--json"]));
    assert_eq!((code, kind.as_str()), (1, "no_repository"));
    assert!(sentence.contains("make one with init"), "{sentence}");
    assert_eq!(fs::read_dir(place.path("store")).unwrap().count(), 0);
    place.run("init", &[]).text();
    let (code, kind, _) = failure(&place.run("init", &["--json"]));
    assert_eq!((code, kind.as_str()), (1, "already_there"));
}

#[test]
fn a_foreign_folder_is_left_alone() {
    let place = Place::empty();
    fs::create_dir(place.path("store")).unwrap();
    fs::write(place.path("store/thesis.txt"), "years of work").unwrap();
    for command in ["init", "info"] {
        let (code, kind, _) = failure(&place.run(command, &["--json"]));
        assert_eq!((code, kind.as_str()), (1, "foreign"), "{command}");
    }
    assert_eq!(fs::read_dir(place.path("store")).unwrap().count(), 1);
}

#[test]
fn a_newer_format_asks_for_an_upgrade() {
    let place = Place::with_repository();
    let config = place.path("store/config");
    let mut object = fs::read(&config).unwrap();
    // The version follows the eight bytes of the magic number.
    object[8..10].copy_from_slice(&9u16.to_le_bytes());
    fs::remove_file(&config).unwrap();
    fs::write(&config, object).unwrap();
    let (code, kind, sentence) = failure(&place.run("info", &["--json"]));
    assert_eq!((code, kind.as_str()), (1, "newer_format"));
    assert!(sentence.contains("upgrade"), "{sentence}");
}

#[test]
fn a_wrong_secret_is_refused_and_an_unsafe_file_not_read() {
    let place = Place::with_repository();
    place.write_secret("wrong", b"guess\n");
    let with = |option: &str, file: &str| {
        let store = place.store();
        ended(place.bare("info", &["--json", "--store", &store, option, &place.arg(file)]))
    };
    let (code, kind, _) = failure(&with("--passphrase-file", "wrong"));
    assert_eq!((code, kind.as_str()), (3, "wrong_secret"));
    for (option, file) in
        [("--passphrase-file", "missing"), ("--key-file", "wrong"), ("--identity-file", "wrong")]
    {
        let (code, kind, _) = failure(&with(option, file));
        assert_eq!((code, kind.as_str()), (2, "secret_file"), "{option}");
    }
    fs::set_permissions(place.path("passphrase"), fs::Permissions::from_mode(0o622)).unwrap();
    let (code, _, sentence) = failure(&with("--passphrase-file", "passphrase"));
    assert!(code == 2 && sentence.contains("chmod go-w"), "{sentence}");
}

#[test]
fn arguments_that_make_no_sense_end_with_two() {
    let place = Place::with_repository();
    let bitmap = "vda=nbd://127.0.0.1:1/x?bitmap=b";
    for (command, arguments) in [
        ("backup", &["--machine", "web"][..]),
        ("backup", &["--machine", "web", "--disk", "vda"]),
        ("backup", &["--machine", "web", "--disk", bitmap]),
        ("restore", &["latest"]),
        ("verify", &[]),
        ("verify", &["latest", "--all"]),
        ("forget", &[]),
        ("forget", &["--keep-last", "0"]),
        ("forget", &["--keep-last", "1", "--time-zone", "Vienna"]),
        ("forget", &["abc", "--keep-last", "1"]),
        ("ls", &["latest", "/etc"]),
        ("serve", &["latest", "--disk", "vda", "--fill"]),
        ("keys add", &["--label", "x"]),
    ] {
        let ended = place.run(command, arguments);
        assert_eq!(ended.code, Some(2), "{command} {arguments:?}: {}", ended.stderr);
    }
    let store = place.store();
    assert_eq!(ended(place.bare("info", &["--store", &store])).code, Some(2), "no secret");
    let both = ["--passphrase-file", "passphrase", "--key-file", "passphrase"];
    assert_eq!(ended(place.bare("info", &[&["--store", &store], &both[..]].concat())).code, Some(2));
    let s3 = ["--store", "s3://bucket/x", "--passphrase-file", "passphrase"];
    assert_eq!(ended(place.bare("info", &s3)).code, Some(2), "no access key");
    assert_eq!(
        ended(place.bare("info", &["--store", "/x", "--passphrase-file", "passphrase"])).code,
        Some(2)
    );
}

#[test]
fn an_unknown_name_is_reported() {
    let place = Place::with_repository();
    let (code, kind, _) = failure(&place.run("restore", &["latest", "--disk", "vda=x", "--json"]));
    assert_eq!((code, kind.as_str()), (1, "no_snapshot"));
    let (code, kind, _) = failure(&place.run("forget", &["01abc", "--json"]));
    assert_eq!((code, kind.as_str()), (1, "no_snapshot"));
}

#[test]
fn a_store_that_is_not_reached_ends_with_four() {
    let place = Place::empty();
    place.write_secret("s3", b"hush\n");
    // Nobody listens on a port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (endpoint, passphrase, secret) =
        (format!("http://127.0.0.1:{port}"), place.arg("passphrase"), place.arg("s3"));
    let access = ["--store", "s3://bucket/x", "--endpoint", &endpoint, "--passphrase-file", &passphrase];
    let s3 = ["--access-key-id", "me", "--secret-access-key-file", &secret, "--json"];
    let (code, kind, sentence) = failure(&ended(place.bare("info", &[&access[..], &s3].concat())));
    assert_eq!((code, kind.as_str()), (4, "store"), "{sentence}");
    assert!(!sentence.contains("hush"));
}
