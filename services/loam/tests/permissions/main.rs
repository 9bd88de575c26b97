//! Who may publish and subscribe to what, on a real server with the configuration that `loam up` writes.
//!
//! `subjects` lists every subject that means something, `raw_client` speaks NATS by hand so that each refusal is seen,
//! `test_bus` starts server, keys and tables. The expectation is `contract::permissions`; people read it in
//! `deploy/nats/permissions.md`, which `written` compares with the same source. `attack` tries with every key to change or
//! read what belongs to another account.

mod attack;
mod callers;
mod cluster;
mod people;
mod raw_client;
mod reload;
mod reply_entries;
mod subjects;
mod test_bus;
mod written;

use contract::{Realm, Service};
use nkeys::KeyPair;
use testkit::eventually;

use raw_client::RawClient;
use subjects::{covers, literal, patterns};
use test_bus::{TestBus, all_users};

#[tokio::test(flavor = "multi_thread")]
async fn everybody_may_publish_and_subscribe_to_what_the_contract_grants_and_nothing_else() {
    let test_bus = TestBus::start().await;
    let granted = |list: &[String], asked: &str| list.iter().any(|right| covers(right, asked));
    let mut wrong = Vec::new();
    for user in all_users() {
        let permissions = user.permissions(&Realm::default());
        let mut client = test_bus.raw_client(&user);
        for subject in literal() {
            let (may, expected) = (client.may_publish(&subject), granted(&permissions.publish, &subject));
            if may != expected {
                wrong.push(format!("{user} publishes {subject}: {may}, granted: {expected}"));
            }
        }
        for subject in literal().into_iter().chain(patterns()) {
            let (may, expected) = (client.may_subscribe(&subject), granted(&permissions.subscribe, &subject));
            if may != expected {
                wrong.push(format!("{user} subscribes to {subject}: {may}, granted: {expected}"));
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
async fn a_request_gets_one_reply_and_its_answerer_cannot_write_to_the_caller_otherwise() {
    let test_bus = TestBus::start().await;
    let mut asker = test_bus.raw_service(Service::Backup);
    let mut answerer = test_bus.raw_service(Service::Provisioner);
    answerer.subscribe("loam.v1.provisioner.>");
    asker.subscribe("_INBOX_backup.>");
    assert!(answerer.round().errors.is_empty() && asker.round().errors.is_empty());
    assert!(!answerer.may_publish("_INBOX_backup.a"));
    asker.publish("loam.v1.provisioner.get_vm", "_INBOX_backup.a", &[], "{}");
    let reply = answerer.wait_for_message().reply.expect("a reply subject");
    assert!(reply.starts_with("_R_."), "the server's own: {reply}");
    for _ in 0..3 {
        assert!(answerer.may_publish(&reply));
    }
    asker.publish("loam.v1.provisioner.get_vm", "_INBOX_backup.b", &[], "{}");
    let reply = answerer.wait_for_message().reply.expect("a reply subject");
    assert!(answerer.may_publish(&reply));
    let mut received = Vec::new();
    eventually("the second reply is there", async || {
        received.extend(asker.round().messages.into_iter().map(|message| message.subject));
        received.last().is_some_and(|subject| subject == "_INBOX_backup.b")
    })
    .await;
    assert_eq!(received, ["_INBOX_backup.a", "_INBOX_backup.b"], "of the first request one reply");
}
