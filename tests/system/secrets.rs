//! No secret where others can read: a marked value in a variable and in a script goes through creation, backup, restore
//! and removal, and is then in no row, event, log line, span or file. A name that is no secret is searched for in the same
//! way and found, so that the search itself is tested.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use bus::Transport;
use contract::{Realm, Service, bucket};
use futures::StreamExt;
use system_tests::{Collector, Installation, InstallationOptions, definition_file, image};
use testkit::eventually;

use crate::rows::tables_of;

const SECRET: &str = "sesame-4711-open";
const PUBLIC: &str = "marked-4711";

/// Everything that was seen, by where.
#[derive(Default)]
struct Seen(Vec<(String, Vec<u8>)>);

impl Seen {
    fn add(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.into(), bytes.into()));
    }

    /// Where a text was seen.
    fn places(&self, text: &str) -> Vec<&str> {
        let holds = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        self.0.iter().filter(|(_, bytes)| holds(bytes)).map(|(place, _)| place.as_str()).collect()
    }

    /// The secret was seen nowhere, and the name in a place of each of these kinds.
    fn check(&self, kinds: &[&str]) {
        assert_eq!(self.places(SECRET), [""; 0], "the secret was seen");
        let found = self.places(PUBLIC);
        for kind in kinds {
            assert!(
                found.iter().any(|place| place.starts_with(kind)),
                "the search finds nothing in {kind}: {found:?}"
            );
        }
    }
}

/// The files below a folder that hold a text.
fn files_with(text: &str, folder: &Path) -> Vec<String> {
    let found = Command::new("grep").args(["-rlaF", "--", text]).arg(folder).output().expect("grep runs");
    assert!(found.stderr.is_empty(), "{found:?}");
    String::from_utf8(found.stdout).expect("text").lines().map(str::to_owned).collect()
}

/// The rows of all tables, each read with its own service's key.
async fn rows(installation: &Installation) -> Seen {
    let mut seen = Seen::default();
    for service in Service::FIVE {
        let tables = tables_of(installation, service).await;
        for table in bucket::of_service(service) {
            for row in tables.read_page(table.name, "", 0).await.expect("listed").rows {
                seen.add(format!("row {service}.{}.{}", table.name, row.key), row.value);
            }
        }
    }
    seen
}

/// What a command prints; it must succeed.
fn printed(installation: &Installation, arguments: &[&str]) -> String {
    let output = installation.loam(arguments);
    assert!(output.status.success(), "loam {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// The definition of a VM with the secret in a variable and in a script.
fn definition(folder: &Path, name: &str, last_line: &str) -> String {
    let script = format!("#!/bin/sh\necho {SECRET}\n{last_line}\n");
    let path = definition_file(folder, name, "tiny", &format!("{name}.example"), &script);
    let text = std::fs::read_to_string(&path).expect("readable");
    std::fs::write(&path, format!("{text}PASSWORD = \"{SECRET}\"\n")).expect("written");
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_in_no_row_event_log_span_or_file() {
    let collector = Collector::open().await;
    let environment = vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT".to_string(), collector.endpoint()),
        ("OTEL_BSP_SCHEDULE_DELAY".to_string(), "200".to_string()),
    ];
    let options = InstallationOptions { environment, ..InstallationOptions::default() };
    let mut installation = Installation::start(options).await;
    // Of the person, not of the installation.
    let folder = tempfile::tempdir().expect("a folder");

    let events = Arc::new(Mutex::new(Seen::default()));
    let operator = installation.operator().await;
    let pattern = format!("{}.v1.event.>", Realm::default());
    let mut subscription = operator.subscribe(&pattern).await.expect("subscribed");
    let kept = Arc::clone(&events);
    tokio::spawn(async move {
        while let Some(event) = subscription.next().await {
            let headers = format!("{:?}", event.headers);
            let bytes = [event.subject.as_bytes(), headers.as_bytes(), &event.body].concat();
            kept.lock().expect("no panic while locked").add(format!("event {}", event.subject), bytes);
        }
    });

    let image = image(folder.path(), 1);
    let path = image.path.display().to_string();
    installation.loam_json(&["seed", "add", "tiny", "--from", &path, "--sha256", &image.sha256]);
    let good = definition(folder.path(), PUBLIC, "");
    printed(&installation, &["vm", "create", &good]);
    rows(&installation).await.check(&["row provisioner.vms", "row provisioner.operations"]);
    let failing = definition(folder.path(), "failing", "exit 3");
    let failed = installation.loam(&["vm", "create", &failing, "--json"]);
    let failed = [failed.stdout, failed.stderr].concat();
    let text = String::from_utf8_lossy(&failed);
    assert!(text.contains("ended with status 3") && !text.contains(SECRET), "{text}");

    let reference = format!("{PUBLIC}@latest");
    printed(&installation, &["backup", "run", PUBLIC]);
    printed(&installation, &["backup", "restore", &reference, "--as", "copy"]);
    rows(&installation).await.check(&["row provisioner.vms", "row backup.operations", "row proxy.routes"]);

    // Nothing shows it unless it is asked for, and then it is there: also in the copy.
    let mut shown = Seen::default();
    for command in [
        &["vm", "list", "--json"][..],
        &["vm", "show", PUBLIC, "--json"],
        &["vm", "show", PUBLIC],
        &["op", "list", "--json"],
        &["backup", "list", "--json"],
        &["status", "--json"],
    ] {
        shown.add(format!("answer {command:?}"), printed(&installation, command));
    }
    shown.check(&["answer"]);
    for vm in [PUBLIC, "copy"] {
        let secrets = installation.loam_json(&["vm", "show", vm, "--secrets"]);
        assert_eq!(secrets["definition"]["env"]["PASSWORD"], SECRET);
        assert!(
            secrets["definition"]["install"][0]["text"].as_str().is_some_and(|text| text.contains(SECRET))
        );
    }
    let operations = installation.loam_json(&["op", "list"]);
    let creations = operations.as_array().expect("a list").iter().filter(|op| op["kind"] == "create_vm");
    let mut count = 0;
    for creation in creations {
        let id = creation["id"].as_str().expect("an id");
        assert!(printed(&installation, &["op", "show", id, "--output"]).contains(SECRET), "{id}");
        count += 1;
    }
    assert_eq!(count, 2);

    only_the_operator_sees_it(&installation).await;
    printed(&installation, &["vm", "remove", PUBLIC]);
    rows(&installation).await.check(&["row provisioner.operations"]);
    eventually("the removal was published", async || {
        let events = events.lock().expect("no panic while locked");
        events.places(PUBLIC).iter().any(|place| place.contains("vm_changed"))
    })
    .await;
    assert!(installation.end().await.success(), "{}", installation.logs());
    events.lock().expect("no panic while locked").check(&["event"]);

    let mut sent = Seen::default();
    for (path, body) in collector.bodies() {
        sent.add(path, body);
    }
    sent.check(&["/v1/traces", "/v1/logs"]);
    // Every message that a stream holds is in a file of the server. No file may hold the secret, whoever can read it.
    let state = installation.state();
    assert_eq!(files_with(SECRET, state), [""; 0]);
    for kind in ["nats", "log"] {
        assert!(!files_with(PUBLIC, &state.join(kind)).is_empty(), "the search finds nothing in {kind}");
    }
}

/// The same person by another name is shown no variables; what the scripts of their own operations wrote, still.
async fn only_the_operator_sees_it(installation: &Installation) {
    let people = installation.state().join("people.toml");
    let as_operator = std::fs::read_to_string(&people).expect("readable");
    let operations = installation.loam_json(&["op", "list"]);
    let creation = operations.as_array().expect("a list").iter().find(|op| op["kind"] == "create_vm");
    let id = creation.expect("there is one")["id"].as_str().expect("an id").to_owned();
    std::fs::write(&people, as_operator.replace("operator", "alice")).expect("written");
    eventually("the name is known", async || {
        let shown = installation.loam(&["vm", "show", PUBLIC, "--secrets"]);
        String::from_utf8_lossy(&shown.stderr).contains("shown to the operator only")
    })
    .await;
    assert!(printed(installation, &["op", "show", &id, "--output"]).contains(SECRET));
    printed(installation, &["vm", "show", PUBLIC]);
    std::fs::write(&people, as_operator).expect("written");
}
