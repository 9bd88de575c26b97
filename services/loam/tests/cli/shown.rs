//! What people read, and what programs do.

use serde_json::Value;

use crate::installation::{BACKED_UP, CREATED, Installation, UNDONE, WAITING_FOR};

const LISTINGS: [&[&str]; 9] = [
    &["status"],
    &["seed", "list"],
    &["vm", "list"],
    &["proxy"],
    &["backup", "list"],
    &["schedule", "list"],
    &["schedule", "runs", "nightly"],
    &["upgrade", "status"],
    &["op", "list"],
];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn tables_fit_80_columns_and_100_where_nothing_says_how_wide_they_may_be() {
    let installation = Installation::with_vms(3).await;
    for words in LISTINGS {
        for columns in [None, Some(80)] {
            let mut loam = installation.loam(words);
            loam.envs(columns.map(|columns: usize| ("COLUMNS", columns.to_string())));
            let text = String::from_utf8(loam.output().expect("it runs").stdout).expect("UTF-8");
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or(0);
            assert!((1..=columns.unwrap_or(100)).contains(&widest), "{words:?} has {widest}:\n{text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_table_shows_short_ids_and_every_command_takes_them() {
    let installation = Installation::with_vms(1).await;
    let list = installation.text(&["op", "list"]);
    assert!(list.contains(CREATED) && list.contains(UNDONE), "only the whole ids differ:\n{list}");
    let backups = installation.text(&["backup", "list"]);
    assert!(backups.contains("vm-0@01KB5X00 "), "{backups}");

    let shown = installation.text(&["op", "show", "01kb5x"]);
    assert!(shown.contains(BACKED_UP) && shown.contains("start backup vm-0"), "{shown}");
    let ambiguous = installation.run(&["op", "show", "01KB5W"]);
    let message = String::from_utf8_lossy(&ambiguous.stderr).into_owned();
    assert_eq!(ambiguous.status.code(), Some(2), "{message}");
    assert!(message.contains("01KB5W may be any of 2 operations") && message.contains(UNDONE), "{message}");
    assert_eq!(installation.run(&["op", "show", "nope"]).status.code(), Some(3));
    // What the table cuts, the operation itself has.
    assert!(installation.text(&["op", "show", UNDONE]).contains("could not be undone the hypervisor"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_result_says_what_matters() {
    let installation = Installation::with_vms(1).await;
    let created = installation.text(&["vm", "create", &installation.write_definition()]);
    assert!(created.starts_with("vm-0 is ready after 6"), "{created}");
    assert!(created.contains("address 10.88.0.2"), "{created}");
    assert!(created.contains("http://www-0.apps.example:8080/"), "{created}");
    let stored = installation.text(&["backup", "run", "vm-0"]);
    assert!(stored.starts_with(&format!("backup vm-0@{BACKED_UP} is stored after 6")), "{stored}");
    assert!(stored.contains("read 4 GiB, new 12 MiB, stored 5 MiB"), "{stored}");
    let mut add = installation.loam(&["schedule", "add", "nightly", "--cron", "@daily", "--backup", "vm-0"]);
    let output = add.env("TZ", "Europe/Paris").output().expect("it runs");
    let added = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(added.starts_with("schedule nightly is added; next run: 2"), "{added}");
    assert!(added.trim_end().ends_with(" UTC)") || added.trim_end().ends_with('Z'), "{added}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_command_that_waits_says_for_what_at_once_and_once() {
    let installation = Installation::with_vms(1).await;
    let output = installation.run(&["backup", "run", "vm-at-work"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(said, format!("start backup vm-0: waiting: {WAITING_FOR}\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_has_ended_is_not_cancelled_and_that_is_said() {
    let installation = Installation::with_vms(1).await;
    let output = installation.run(&["op", "cancel", CREATED]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(message.contains("create vm vm-0") && message.contains("nothing was cancelled"), "{message}");
    assert!(installation.text(&["op", "cancel", UNDONE]).contains("was undone already"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_json_every_error_is_an_object() {
    let installation = Installation::with_vms(1).await;
    for (words, code, kind) in [
        (&["vm", "show", "nobody", "--json"][..], 3, "refused"),
        (&["vm", "show", "--json"], 2, "arguments"),
        (&["vm", "nonsense", "--json"], 2, "arguments"),
        (&["op", "show", "nope", "--json"], 3, "no_operation"),
        (&["vm", "create", "/nonexistent.toml", "--json"], 2, "arguments"),
        (&["--state", "/nonexistent", "vm", "list", "--json"], 4, "unreachable"),
    ] {
        let output = installation.run(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let object: Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?}: {error}: {text}"));
        let error = &object["error"];
        assert_eq!(
            (object["outcome"].as_str(), error["kind"].as_str()),
            (Some("failed"), Some(kind)),
            "{text}"
        );
        assert_eq!((output.status.code(), error["exit_code"].as_i64()), (Some(code), Some(code.into())));
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{text}");
        assert!(output.stderr.is_empty(), "{words:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_vm_that_is_entered_needs_the_key_of_its_host() {
    let installation = Installation::with_vms(1).await;
    let output = installation.run(&["vm", "ssh", "vm-0", "--", "true"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert!(message.contains("ssh_ed25519") && message.contains("provisioner's host"), "{message}");
}
