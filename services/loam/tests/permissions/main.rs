//! Who may publish and subscribe to what, on a real server with the configuration that `loam up` writes.
//!
//! `subjects` lists every subject that means something, `raw_client` speaks NATS by hand so that each refusal is seen,
//! `test_bus` starts server, keys and buckets. The expectation is `contract::permissions`; people read it in
//! `deploy/nats/permissions.md`, which `written` compares with the same source.

mod injections;
mod people;
mod raw_client;
mod subjects;
mod test_bus;
mod written;

use contract::permissions::{self, Permissions};
use contract::{Realm, Service};
use loam::state::keys::OPERATOR;
use nkeys::KeyPair;

use raw_client::RawClient;
use subjects::{covers, literal, patterns};
use test_bus::TestBus;

/// Everybody the server knows, with their permissions.
fn everybody() -> Vec<(String, Permissions)> {
    let realm = Realm::default();
    let mut all: Vec<(String, Permissions)> = Service::ALL
        .into_iter()
        .map(|service| (service.to_string(), permissions::of_service(&realm, service)))
        .collect();
    all.push(("bootstrap".into(), permissions::of_bootstrap()));
    all.push((OPERATOR.into(), permissions::of_person(&realm, OPERATOR)));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_may_publish_and_subscribe_to_what_the_contract_grants_and_nothing_else() {
    let test_bus = TestBus::start().await;
    let granted = |list: &[String], asked: &str| list.iter().any(|right| covers(right, asked));
    let mut wrong = Vec::new();
    for (name, rights) in everybody() {
        let mut client = test_bus.raw_client(&name);
        for subject in literal() {
            let (may, expected) = (client.may_publish(&subject), granted(&rights.publish, &subject));
            if may != expected {
                wrong.push(format!("{name} publishes {subject}: {may}, granted: {expected}"));
            }
        }
        for subject in literal().into_iter().chain(patterns()) {
            let (may, expected) = (client.may_subscribe(&subject), granted(&rights.subscribe, &subject));
            if may != expected {
                wrong.push(format!("{name} subscribes to {subject}: {may}, granted: {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_cannot_connect() {
    let test_bus = TestBus::start().await;
    let refused =
        |key: Option<&KeyPair>| RawClient::connect(&test_bus.server.url(), key).err().expect("refused");
    assert!(refused(None).contains("Authorization Violation"));
    assert!(refused(Some(&KeyPair::new_user())).contains("Authorization Violation"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_replies_to_a_request_once_and_cannot_write_to_the_caller_otherwise() {
    let test_bus = TestBus::start().await;
    let (mut asker, mut answerer) = (test_bus.raw_client("backup"), test_bus.raw_client("provisioner"));
    answerer.subscribe("loam.v1.provisioner.>");
    asker.subscribe("_INBOX_backup.>");
    assert!(answerer.round().errors.is_empty() && asker.round().errors.is_empty());
    assert!(!answerer.may_publish("_INBOX_backup.a"), "without a request");
    asker.publish("loam.v1.provisioner.get_vm", "_INBOX_backup.a", &[], "{}");
    let question = answerer.wait_for_message();
    assert_eq!(question.reply.as_deref(), Some("_INBOX_backup.a"));
    assert!(answerer.may_publish("_INBOX_backup.a"), "the reply");
    assert_eq!(asker.wait_for_message().subject, "_INBOX_backup.a");
    assert!(!answerer.may_publish("_INBOX_backup.a"), "a second reply");
}
