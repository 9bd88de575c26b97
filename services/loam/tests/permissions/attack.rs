//! Every key against every other account: for each user and each subject that it may publish, with every foreign table,
//! API of JetStream, event and request as reply subject, nothing of another account is changed, forged or read.
//!
//! ```text
//!   tables of all accounts, their streams            ->  the same before and after
//!   events, as people and the proxy receive them     ->  only those of the attacker's own account
//!   requests, as services receive them               ->  only those that it may send itself, with its account as caller;
//!                                                        or without a client as caller, which every service refuses
//!   what the attacker receives                       ->  no row of another account
//! ```
//!
//! A control run shows that this finds something: with one export too many it does.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::permissions::{Account, User};
use contract::{Realm, Service, bucket};
use testkit::eventually;

use crate::raw_client::{Message, RawClient};
use crate::subjects::{covers, literal, table_names};
use crate::test_bus::{TestBus, all_users, operator};

/// Messages between two rounds: the server must not have to wait for us to read.
const BATCH: usize = 100;
/// The server may still write what it does for a client when it has answered it.
const SETTLE: Duration = Duration::from_millis(100);
/// Headers that an attacker may write: none, those that remove rows, and forged ones about the caller.
const HEADERS: [&[&str]; 4] = [
    &[],
    &["Nats-Rollup: all"],
    &["Nats-Rollup: sub"],
    &["Nats-Request-Info: {\"acc\":\"PEOPLE\",\"user\":\"U\",\"kind\":\"Client\"}", "KV-Operation: PURGE"],
];

/// Rows of every table of every account: by table, each row's key and text.
type Tables = BTreeMap<(Service, &'static str), String>;

/// A server, somebody who sees all that services receive, and somebody who sees all events.
struct Field {
    bus: TestBus,
    services: Vec<(Service, RawClient)>,
    events: RawClient,
}

impl Field {
    fn on(bus: TestBus) -> Field {
        let services = Service::ALL.map(|service| {
            let mut client = bus.raw_service(service);
            client.subscribe(&format!("loam.v1.{service}.>"));
            if service == Service::Proxy {
                client.subscribe("loam.v1.event.provisioner.vm_changed.*");
            }
            assert!(client.round().errors.is_empty(), "{service}");
            (service, client)
        });
        let mut events = bus.raw_person();
        events.subscribe("loam.v1.event.>");
        assert!(events.round().errors.is_empty());
        for service in Service::ALL {
            fill(&bus, service);
        }
        Field { bus, services: services.into(), events }
    }

    /// Lets one user try everything; returns what it should not have been able to do.
    fn attack(&mut self, user: &User) -> Vec<String> {
        let before = tables(&self.bus, user.account());
        let read = self.try_everything(user);
        std::thread::sleep(SETTLE);
        let mut wrong = Vec::new();
        for (table, after) in tables(&self.bus, user.account()) {
            if before.get(&table) != Some(&after) {
                let before = before.get(&table);
                wrong.push(format!("{user} changed a table: {table:?} was {before:?} and is {after}"));
            }
        }
        for message in read {
            for service in Service::ALL.into_iter().filter(|it| Account::Service(*it) != user.account()) {
                if message.body.contains(&marker(service)) {
                    wrong.push(format!("{user} read a row of {service} on {}", message.subject));
                }
            }
        }
        // What the server sends on for it, it sends with the rights of the account.
        let of_account = all_users().into_iter().filter(|other| other.account() == user.account());
        let may_publish: Vec<String> =
            of_account.flat_map(|other| other.permissions(&Realm::default()).publish).collect();
        let is_own = |subject: &str| may_publish.iter().any(|right| covers(right, subject));
        for (service, client) in &mut self.services {
            for message in client.round().messages {
                let by_itself = Account::Service(*service) == user.account();
                // What the server sent on, and no client, is refused by whoever receives it (`callers` shows that).
                let by_client = message.headers.contains("\"kind\":\"Client\"");
                let in_own_name = message.headers.contains(&format!("\"acc\":\"{}\"", user.account()));
                let is_permitted = is_own(&message.subject) && (in_own_name || !by_client);
                if !by_itself && !is_permitted && !message.subject.contains(".event.") {
                    wrong.push(format!(
                        "{user} reached {service} on {}: {}",
                        message.subject, message.headers
                    ));
                }
            }
        }
        for message in self.events.round().messages {
            if !is_own(&message.subject) {
                wrong.push(format!("{user} forged the event {}", message.subject));
            }
        }
        wrong
    }

    /// Publishes on every subject that the user may use, or could wish to, with every reply and header.
    fn try_everything(&mut self, user: &User) -> Vec<Message> {
        let mut client = self.bus.raw_client(user);
        let inbox = format!("{}.read", user.inbox_prefix());
        client.subscribe(&format!("{}.>", user.inbox_prefix()));
        let permissions = user.permissions(&Realm::default());
        let subjects: Vec<String> = permissions.publish.iter().flat_map(|right| literals_of(right)).collect();
        let replies = foreign_subjects();
        let mut received = Vec::new();
        let mut sent = 0;
        let mut send = |client: &mut RawClient, subject: &str, reply: &str, headers: &[&str], body: &str| {
            client.publish(subject, reply, headers, body);
            sent += 1;
            if sent % BATCH == 0 {
                received.extend(client.round().messages);
            }
        };
        for subject in &subjects {
            for body in bodies(subject) {
                for reply in replies.iter().chain([&inbox]) {
                    send(&mut client, subject, reply, &[], body);
                }
            }
            for headers in HEADERS {
                for reply in &replies {
                    send(&mut client, subject, reply, headers, "{}");
                }
            }
        }
        // Without any right, in case that a right is missing from the list.
        for subject in replies.iter().chain(&literal()) {
            for body in bodies(subject) {
                send(&mut client, subject, &inbox, &[], body);
            }
        }
        received.extend(client.round().messages);
        // What the server does for it, it does before it answers those who see it.
        received.extend(client.round().messages);
        received
    }
}

/// What makes a row recognisable.
fn marker(service: Service) -> String {
    format!("row-of-{service}")
}

/// Writes a row into every table of a service.
fn fill(bus: &TestBus, service: Service) {
    let mut client = bus.raw_service(service);
    client.subscribe(&format!("_INBOX_{service}.>"));
    for table in bucket::of_service(service) {
        let (subject, body) = (format!("$KV.{}.kept", table.name), marker(service));
        client.publish(&subject, &format!("_INBOX_{service}.x"), &[], &body);
        let stored = client.wait_for_message().body;
        assert!(stored.contains("\"seq\""), "{stored}");
    }
}

/// Rows and state of all tables that belong to others.
fn tables(bus: &TestBus, attacker: Account) -> Tables {
    let mut all = Tables::new();
    for service in Service::ALL.into_iter().filter(|service| Account::Service(*service) != attacker) {
        if bucket::of_service(service).is_empty() {
            continue;
        }
        let mut reader = bus.raw_service(service);
        reader.subscribe(&format!("_INBOX_{service}.>"));
        let mut bootstrap = bus.raw_client(&User::Bootstrap(service));
        bootstrap.subscribe("_INBOX_bootstrap.>");
        for table in bucket::of_service(service) {
            let name = table.name;
            let (read, all_rows) =
                (format!("$JS.API.DIRECT.GET.KV_{name}"), r#"{"multi_last":["$KV.>"],"batch":100}"#);
            reader.publish(&read, &format!("_INBOX_{service}.rows"), &[], all_rows);
            bootstrap.publish(&format!("$JS.API.STREAM.INFO.KV_{name}"), "_INBOX_bootstrap.x", &[], "");
            let mut rows: Vec<String> = Vec::new();
            // A status ends the batch: there are no more, or none at all.
            while !rows.iter().any(|row| row.starts_with("NATS/1.0 ")) {
                let messages = reader.round().messages.into_iter();
                rows.extend(messages.map(|row| format!("{} {}", row.headers, row.body)));
            }
            let info = bootstrap.wait_for_message().body;
            let info: serde_json::Value = serde_json::from_str(&info).expect("JSON");
            let stream =
                serde_json::json!([info["config"], info["state"]["messages"], info["state"]["last_seq"]]);
            all.insert((service, name), format!("{stream} {rows:?}"));
        }
    }
    all
}

/// Subjects that a right covers, with names in the place of wildcards.
fn literals_of(right: &str) -> Vec<String> {
    let with = |name: &str| {
        let words: Vec<&str> =
            right.split('.').map(|word| if word == "*" || word == ">" { name } else { word }).collect();
        words.join(".")
    };
    if right.contains('*') || right.contains('>') {
        vec![with("kept"), with("h1")]
    } else {
        vec![right.into()]
    }
}

/// Bodies that mean something on a subject.
fn bodies(subject: &str) -> &'static [&'static str] {
    if subject.contains("DIRECT.GET") || subject.contains("MSG.GET") {
        &[
            "",
            r#"{"multi_last":["$KV.>"],"batch":100}"#,
            r#"{"multi_last":[">"],"batch":100}"#,
            r#"{"seq":1}"#,
            r#"{"seq":1,"batch":100}"#,
            r#"{"last_by_subj":"$KV.vms.kept"}"#,
        ]
    } else {
        &["{}"]
    }
}

/// What an attacker could wish to reach in another account: rows, the API of JetStream, events, requests.
fn foreign_subjects() -> Vec<String> {
    const API: [&str; 8] = [
        "STREAM.DELETE",
        "STREAM.PURGE",
        "STREAM.UPDATE",
        "STREAM.MSG.DELETE",
        "STREAM.MSG.GET",
        "STREAM.SNAPSHOT",
        "CONSUMER.CREATE",
        "DIRECT.GET",
    ];
    let mut all: Vec<String> =
        literal().into_iter().filter(|subject| subject.starts_with("loam.v1.")).collect();
    for table in table_names() {
        all.push(format!("$KV.{table}.kept"));
        all.extend(API.map(|call| format!("$JS.API.{call}.KV_{table}")));
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn no_key_changes_forges_or_reads_what_belongs_to_another_account() {
    let mut field = Field::on(TestBus::start().await);
    let mut wrong = Vec::new();
    for user in all_users() {
        wrong.extend(field.attack(&user));
        // It may have removed its own tables.
        if let Account::Service(service) = user.account() {
            field.bus.make_tables(service).await;
            fill(&field.bus, service);
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "{} times:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_export_too_many_the_attack_is_found() {
    let widened = |text: String| {
        let (exports, imports) = ("  PROVISIONER {", "  PROXY {");
        let marked = |block: &str, kind: &str, line: &str, text: String| {
            let (before, after) = text.split_once(block).expect("the account");
            let (inside, rest) = after.split_once(&format!("    {kind}: [\n")).expect("its list");
            format!("{before}{block}{inside}    {kind}: [\n{line}\n{rest}")
        };
        let text = marked(exports, "exports", "{ service: \"$KV.vms.>\", accounts: [PROXY] }", text);
        let import = "{ service: { account: PROVISIONER, subject: \"$KV.vms.>\" } }";
        marked(imports, "imports", import, text)
    };
    let mut field = Field::on(TestBus::start_with(widened).await);
    eventually("the attack is found", async || {
        let wrong = field.attack(&User::Service(Service::Proxy));
        wrong.iter().any(|found| found.contains("changed a table: (Provisioner, \"vms\")"))
    })
    .await;
    assert_eq!(field.attack(&operator()), Vec::<String>::new(), "the others are as before");
}
