//! Who may say and hear what, asked of a real server with the settings that `loam up` writes.
//!
//! `catalogue` lists every place that means something, `visitor` speaks NATS by hand so that each refusal is seen,
//! `realm` founds a town: server, keys, buckets. The expectation is `contract::permissions`; what people read about it is
//! `deploy/nats/permissions.md`, held to the same source by `written.rs`.

mod catalogue;
mod injections;
mod people;
mod realm;
mod visitor;
mod written;

use contract::permissions::{self, Permissions};
use contract::{Realm, Service};
use loam::state::keys::OPERATOR;
use nkeys::KeyPair;

use catalogue::{covers, patterns, places};
use realm::Town;
use visitor::Visitor;

/// Everybody the server knows, with what he may.
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
async fn everybody_may_say_and_hear_what_the_contract_grants_and_nothing_else() {
    let town = Town::found().await;
    let granted = |list: &[String], asked: &str| list.iter().any(|right| covers(right, asked));
    let mut wrong = Vec::new();
    for (name, rights) in everybody() {
        let mut visitor = town.visitor(&name);
        for place in places() {
            let (may, expected) = (visitor.may_say(&place), granted(&rights.publish, &place));
            if may != expected {
                wrong.push(format!("{name} says {place}: {may}, granted: {expected}"));
            }
        }
        for place in places().into_iter().chain(patterns()) {
            let (may, expected) = (visitor.may_hear(&place), granted(&rights.subscribe, &place));
            if may != expected {
                wrong.push(format!("{name} hears {place}: {may}, granted: {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_do_not_come_in() {
    let town = Town::found().await;
    let refused = |key: Option<&KeyPair>| Visitor::come(&town.server.url(), key).err().expect("refused");
    assert!(refused(None).contains("Authorization Violation"));
    assert!(refused(Some(&KeyPair::new_user())).contains("Authorization Violation"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_answers_a_question_once_and_cannot_write_to_its_asker_otherwise() {
    let town = Town::found().await;
    let (mut asker, mut answerer) = (town.visitor("backup"), town.visitor("provisioner"));
    answerer.listen("loam.v1.provisioner.>");
    asker.listen("_INBOX_backup.>");
    assert!(answerer.round().errors.is_empty() && asker.round().errors.is_empty());
    assert!(!answerer.may_say("_INBOX_backup.a"), "unasked");
    asker.say("loam.v1.provisioner.get_vm", "_INBOX_backup.a", &[], "{}");
    let question = answerer.wait_for_message();
    assert_eq!(question.reply.as_deref(), Some("_INBOX_backup.a"));
    assert!(answerer.may_say("_INBOX_backup.a"), "the answer");
    assert_eq!(asker.wait_for_message().subject, "_INBOX_backup.a");
    assert!(!answerer.may_say("_INBOX_backup.a"), "a second answer");
}
