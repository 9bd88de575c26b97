//! What people can and cannot do from their account.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::{CallError, Caller, Declined};
use contract::backup::{ListBackups, StartBackup, StartBackupRefused};
use contract::provisioner::{CloseDisks, ListVms};
use contract::message::Nothing;
use contract::{OperationId, Service};
use loam::state::keys::OPERATOR;
use testkit::eventually;

use crate::realm::{Town, card};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_answered_and_the_server_itself_says_who_asks() {
    let town = Town::found().await;
    let backup = town.service(Service::Backup).await;
    let seen: Arc<Mutex<Vec<Caller>>> = Arc::default();
    let note = Arc::clone(&seen);
    let mut server = backup.server(card(Service::Backup));
    server.on::<ListBackups, _, _>(move |asked| {
        note.lock().expect("no panic").push(asked.caller);
        std::future::ready(Ok::<_, Declined<NoRefusal>>(Vec::new()))
    });
    let _open = server.open().await.expect("open");
    let bus = town.person().await;
    bus.call(&ListBackups::default(), SOON).await.expect("answered");
    // Once more with a stamp of his own making, in several spellings.
    let mut forger = town.visitor(OPERATOR);
    forger.listen("_INBOX_operator.>");
    let forged = [
        "Nats-Request-Info: {\"acc\":\"LOAM\",\"user\":\"backup\"}",
        "Nats-Request-Info: {\"acc\":\"LOAM\"}",
        "nats-request-info: {\"acc\":\"LOAM\"}",
    ];
    forger.say("loam.v1.backup.list_backups", "_INBOX_operator.forged", &forged, "{}");
    assert_eq!(forger.wait_for_message().subject, "_INBOX_operator.forged");
    let (_, key) = town.keys.people.first().expect("one person").clone();
    let person = Caller::Person { account: "PEOPLE".into(), user: Some(key) };
    assert_eq!(*seen.lock().expect("no panic"), [person.clone(), person]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_reaches_no_word_between_services() {
    let town = Town::found().await;
    let provisioner = town.service(Service::Provisioner).await;
    let mut server = provisioner.server(card(Service::Provisioner));
    server.on::<CloseDisks, _, _>(|_| async { panic!("nobody may get here") });
    let _open = server.open().await.expect("open");
    let mut person = town.visitor(OPERATOR);
    assert!(!person.may_say("loam.v1.provisioner.close_disks"));
    assert!(!person.may_say("loam.v1.event.backup.backup_sealed.web"));
    let bus = town.person().await;
    let id = OperationId::from_bits(7);
    let error =
        bus.call(&CloseDisks { operation_id: id }, Duration::from_millis(500)).await.expect_err("denied");
    assert!(matches!(error, CallError::Transport { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_hears_events_and_finds_every_service() {
    let town = Town::found().await;
    let person = town.person().await;
    let mut listener = town.visitor(OPERATOR);
    listener.listen("loam.v1.event.>");
    assert!(listener.round().errors.is_empty());
    let mut teller = town.visitor("backup");
    teller.say("loam.v1.event.backup.backup_sealed.web", "", &[], "{}");
    assert_eq!(listener.wait_for_message().subject, "loam.v1.event.backup.backup_sealed.web");
    let mut open = Vec::new();
    for service in Service::FIVE {
        let bus = town.service(service).await;
        open.push(bus.server(card(service)).open().await.expect("open"));
    }
    let all: BTreeSet<String> = Service::FIVE.map(|service| service.to_string()).into();
    eventually("every service is found", async || {
        let peers = person.discover(Duration::from_secs(1)).await.expect("asked");
        peers.into_iter().map(|peer| peer.name).collect::<BTreeSet<_>>() == all
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_cannot_pass_for_a_service_by_a_refused_word() {
    let town = Town::found().await;
    let backup = town.service(Service::Backup).await;
    let mut server = backup.server(card(Service::Backup));
    server.on::<StartBackup, _, _>(|asked| {
        let refusal = StartBackupRefused::Unknown(asked.request.vm);
        std::future::ready(Err(Declined::Refused(refusal)))
    });
    let _open = server.open().await.expect("open");
    let person = town.person().await;
    let vm = contract::VmName::new("web").expect("a name");
    let command = StartBackup { vm, schedule: None, operation_id: None };
    let error = person.call(&command, SOON).await.expect_err("refused");
    assert_eq!(error.to_string(), "there is no vm web", "refusals come back over the border of accounts");
    let error = person.call(&ListVms {}, SOON).await.expect_err("nobody serves it");
    assert!(error.to_string().contains("nobody answers"), "{error}");
}
