//! The ways to make the server send a message for somebody else: each is denied, or not obeyed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::ErrorReply;
use contract::message::NeverRefused;
use contract::operation::BegunOperation;
use contract::provisioner::{RemoveVm, StopVm, VmRefused};
use contract::scheduler::ListSchedules;
use contract::{OperationId, Service, VmName};

use crate::test_bus::{TestBus, info};
use crate::{everybody, raw_client::RawClient};

/// The command that everybody tries to send in somebody else's name.
const TARGET: &str = "loam.v1.upgrade.apply_release";

fn all_but_bootstrap(test_bus: &TestBus) -> Vec<(String, RawClient)> {
    let names = everybody().into_iter().map(|(name, _)| name).filter(|name| name != "bootstrap");
    names.map(|name| (name.clone(), test_bus.raw_client(&name))).collect()
}

/// Nothing that was tried reached the target.
fn nothing_reached(target: &mut RawClient) {
    let received = target.round();
    assert!(received.messages.is_empty(), "{:?}", received.messages);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_makes_a_push_consumer_that_delivers_to_anothers_command() {
    let test_bus = TestBus::start().await;
    let mut target = test_bus.raw_client("upgrade");
    target.subscribe(TARGET);
    for (name, mut client) in all_but_bootstrap(&test_bus) {
        for table in contract::bucket::ALL.map(|table| table.name) {
            let config = format!(
                r#"{{"stream_name":"KV_{table}","config":{{"deliver_subject":"{TARGET}","deliver_policy":"all","ack_policy":"none"}}}}"#
            );
            for word in [
                format!("CREATE.KV_{table}"),
                format!("CREATE.KV_{table}.evil"),
                format!("CREATE.KV_{table}.evil.$KV.{table}.>"),
                format!("DURABLE.CREATE.KV_{table}.evil"),
            ] {
                let subject = format!("$JS.API.CONSUMER.{word}");
                client.publish(&subject, &format!("_INBOX_{name}.x"), &[], &config);
                let errors = client.round().errors;
                assert!(
                    errors.iter().any(|error| error.contains("Permissions Violation")),
                    "{name}: {subject}"
                );
            }
        }
    }
    nothing_reached(&mut target);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_makes_or_changes_a_stream_that_republishes_to_anothers_command() {
    let test_bus = TestBus::start().await;
    let mut target = test_bus.raw_client("upgrade");
    target.subscribe(TARGET);
    for (name, mut client) in all_but_bootstrap(&test_bus) {
        for (verb, stream) in [("CREATE", "evil"), ("UPDATE", "KV_vms"), ("CREATE", "KV_operations")] {
            let config = format!(
                r#"{{"name":"{stream}","subjects":["{stream}.>"],"republish":{{"src":">","dest":"{TARGET}"}}}}"#
            );
            let subject = format!("$JS.API.STREAM.{verb}.{stream}");
            client.publish(&subject, &format!("_INBOX_{name}.x"), &[], &config);
            let errors = client.round().errors;
            assert!(errors.iter().any(|error| error.contains("Permissions Violation")), "{name}: {subject}");
        }
    }
    nothing_reached(&mut target);
}

/// Serves the provisioner's `stop_vm` and records which VMs it was asked to stop.
async fn stopping(test_bus: &TestBus) -> (bus::RunningServer, Arc<Mutex<Vec<VmName>>>) {
    let asked_for: Arc<Mutex<Vec<VmName>>> = Arc::default();
    let note = Arc::clone(&asked_for);
    let mut server = test_bus.service(Service::Provisioner).await.server(info(Service::Provisioner));
    server.on::<StopVm, _, _>(move |asked| {
        note.lock().expect("no panic").push(asked.request.vm);
        std::future::ready(Ok::<_, ErrorReply<VmRefused>>(BegunOperation::Begun(OperationId::from_bits(7))))
    });
    (server.open().await.expect("open"), asked_for)
}

/// An answered request of a person proves that the service has seen every message before it.
async fn ask_honestly(test_bus: &TestBus) -> VmName {
    let honest = VmName::new("honest").expect("a name");
    let command = StopVm { vm: honest.clone(), operation_id: None };
    test_bus.person().await.call(&command, Duration::from_secs(5)).await.expect("answered");
    honest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_read_whose_reply_is_anothers_command_is_not_obeyed() {
    let test_bus = TestBus::start().await;
    let (_open, asked_for) = stopping(&test_bus).await;
    let mut witness = test_bus.raw_client("provisioner");
    witness.subscribe("loam.v1.provisioner.stop_vm");
    assert!(witness.round().errors.is_empty());
    // The server delivers stored bytes to any subject that the reader names: it has no rule against that.
    let mut attacker = test_bus.raw_client("backup");
    attacker.subscribe("_INBOX_backup.>");
    attacker.publish("$KV.operations.backup.evil", "_INBOX_backup.stored", &[], r#"{"vm":"stolen"}"#);
    attacker.wait_for_message();
    let read = "$JS.API.DIRECT.GET.KV_operations.$KV.operations.backup.evil";
    attacker.publish(read, "loam.v1.provisioner.stop_vm", &[], "");
    let delivered = witness.wait_for_message();
    assert_eq!((delivered.body.as_str(), delivered.reply), (r#"{"vm":"stolen"}"#, None));
    let honest = ask_honestly(&test_bus).await;
    assert_eq!(
        *asked_for.lock().expect("no panic"),
        [honest],
        "a message without a reply subject is not obeyed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_names_anothers_command_as_reply_subject_is_not_answered() {
    let test_bus = TestBus::start().await;
    let removed: Arc<Mutex<usize>> = Arc::default();
    let note = Arc::clone(&removed);
    let mut server = test_bus.service(Service::Provisioner).await.server(info(Service::Provisioner));
    server.on::<RemoveVm, _, _>(move |_| {
        *note.lock().expect("no panic") += 1;
        std::future::ready(Ok::<_, ErrorReply<VmRefused>>(BegunOperation::Begun(OperationId::from_bits(7))))
    });
    let _open = server.open().await.expect("open");
    let mut target = test_bus.raw_client("scheduler");
    target.subscribe("loam.v1.scheduler.>");
    assert!(target.round().errors.is_empty());
    let mut attacker = test_bus.raw_client("backup");
    let command = "loam.v1.provisioner.remove_vm";
    attacker.publish(command, "loam.v1.scheduler.remove_schedule", &[], r#"{"vm":"web"}"#);
    attacker.subscribe("_INBOX_backup.>");
    attacker.publish(command, "_INBOX_backup.honest", &[], r#"{"vm":"web"}"#);
    attacker.wait_for_message();
    assert_eq!(*removed.lock().expect("no panic"), 1, "only the honest request is obeyed");
    nothing_reached(&mut target);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_a_person_directs_to_another_command_is_not_obeyed() {
    let test_bus = TestBus::start().await;
    let (_open, _) = stopping(&test_bus).await;
    let obeyed: Arc<Mutex<usize>> = Arc::default();
    let note = Arc::clone(&obeyed);
    let mut server = test_bus.service(Service::Scheduler).await.server(info(Service::Scheduler));
    server.on::<ListSchedules, _, _>(move |_| {
        *note.lock().expect("no panic") += 1;
        std::future::ready(Ok::<_, ErrorReply<NeverRefused>>(Vec::new()))
    });
    let _scheduler_open = server.open().await.expect("open");
    let mut witness = test_bus.raw_client("scheduler");
    witness.subscribe("loam.v1.scheduler.list_schedules");
    assert!(witness.round().errors.is_empty());
    let mut person = test_bus.raw_client("operator");
    person.publish("loam.v1.provisioner.stop_vm", "loam.v1.scheduler.list_schedules", &[], r#"{"vm":"web"}"#);
    // The server forwards the reply to the other account, since that subject is exported; it has no reply subject.
    assert_eq!(witness.wait_for_message().reply, None);
    test_bus.person().await.call(&ListSchedules {}, Duration::from_secs(5)).await.expect("answered");
    assert_eq!(*obeyed.lock().expect("no panic"), 1, "only the honest request is obeyed");
}
