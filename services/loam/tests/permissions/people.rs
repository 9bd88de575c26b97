//! What people can and cannot do from their account.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::{CallError, Caller, ErrorReply};
use contract::backup::{ListBackups, StartBackup, StartBackupRefused};
use contract::message::NeverRefused;
use contract::permissions::Account;
use contract::provisioner::{CloseDisks, ListVms};
use contract::{OperationId, Service};
use testkit::eventually;

use crate::test_bus::{TestBus, info};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_person_is_answered_and_the_server_itself_names_the_caller() {
    let test_bus = TestBus::start().await;
    let backup = test_bus.service(Service::Backup).await;
    let seen: Arc<Mutex<Vec<Caller>>> = Arc::default();
    let note = Arc::clone(&seen);
    let mut server = backup.server(info(Service::Backup));
    server.on::<ListBackups, _, _>(move |asked| {
        note.lock().expect("no panic").push(asked.caller);
        std::future::ready(Ok::<_, ErrorReply<NeverRefused>>(Vec::new()))
    });
    let _open = server.open().await.expect("open");
    let bus = test_bus.person().await;
    bus.call(&ListBackups::default(), SOON).await.expect("answered");
    // Once more with forged headers, in several spellings.
    let mut forger = test_bus.raw_person();
    forger.subscribe("_INBOX_operator.>");
    let forged = [
        "Nats-Request-Info: {\"acc\":\"UPGRADE\",\"user\":\"U\",\"kind\":\"Client\"}",
        "Nats-Request-Info: {\"acc\":\"UPGRADE\",\"kind\":\"Client\"}",
        "nats-request-info: {\"acc\":\"UPGRADE\",\"kind\":\"Client\"}",
    ];
    forger.publish("loam.v1.backup.list_backups", "_INBOX_operator.forged", &forged, "{}");
    assert_eq!(forger.wait_for_message().subject, "_INBOX_operator.forged");
    let (_, key) = test_bus.keys.of(Account::People).next().expect("one person");
    let person = Caller::Person { user: key.into(), name: None };
    assert_eq!(*seen.lock().expect("no panic"), [person.clone(), person]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_reaches_no_request_between_services() {
    let test_bus = TestBus::start().await;
    let provisioner = test_bus.service(Service::Provisioner).await;
    let mut server = provisioner.server(info(Service::Provisioner));
    server.on::<CloseDisks, _, _>(|_| async { panic!("nobody may get here") });
    let _open = server.open().await.expect("open");
    let mut person = test_bus.raw_person();
    assert!(!person.may_publish("loam.v1.provisioner.close_disks"));
    assert!(!person.may_publish("loam.v1.event.backup.backup_sealed.web"));
    let bus = test_bus.person().await;
    let id = OperationId::from_bits(7);
    let error =
        bus.call(&CloseDisks { operation_id: id }, Duration::from_millis(500)).await.expect_err("denied");
    assert!(matches!(error, CallError::Transport { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_receives_events_and_finds_every_service() {
    let test_bus = TestBus::start().await;
    let person = test_bus.person().await;
    let mut listener = test_bus.raw_person();
    listener.subscribe("loam.v1.event.>");
    assert!(listener.round().errors.is_empty());
    let mut publisher = test_bus.raw_service(Service::Backup);
    publisher.publish("loam.v1.event.backup.backup_sealed.web", "", &[], "{}");
    assert_eq!(listener.wait_for_message().subject, "loam.v1.event.backup.backup_sealed.web");
    let mut open = Vec::new();
    for service in Service::FIVE {
        let bus = test_bus.service(service).await;
        open.push(bus.server(info(service)).open().await.expect("open"));
    }
    let all: BTreeSet<String> = Service::FIVE.map(|service| service.to_string()).into();
    eventually("every service is found", async || {
        let peers = person.discover(Duration::from_secs(1)).await.expect("asked");
        peers.into_iter().map(|peer| peer.name).collect::<BTreeSet<_>>() == all
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_reaches_the_person_and_a_missing_service_is_named() {
    let test_bus = TestBus::start().await;
    let backup = test_bus.service(Service::Backup).await;
    let mut server = backup.server(info(Service::Backup));
    server.on::<StartBackup, _, _>(|asked| {
        let refusal = StartBackupRefused::UnknownVm(asked.request.vm);
        std::future::ready(Err(ErrorReply::Refused(refusal)))
    });
    let _open = server.open().await.expect("open");
    let person = test_bus.person().await;
    let vm = contract::VmName::new("web").expect("a name");
    let command = StartBackup { vm, schedule: None, operation_id: None };
    let error = person.call(&command, SOON).await.expect_err("refused");
    assert_eq!(
        error.to_string(),
        "there is no vm web; `loam vm list` lists them",
        "refusals are forwarded between accounts"
    );
    let error = person.call(&ListVms {}, SOON).await.expect_err("no service answers");
    let text = contract::message::with_causes(&error);
    assert!(text.contains("no service answers"), "{text}");
}
