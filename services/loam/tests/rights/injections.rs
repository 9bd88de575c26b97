//! The ways in which a server can be made to speak for somebody: each is denied, or not obeyed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::Declined;
use contract::operation::Begun;
use contract::provisioner::{RemoveVm, StopVm, VmRefused};
use contract::scheduler::ListSchedules;
use contract::message::Nothing;
use contract::{OperationId, Service, VmName};

use crate::realm::{Town, card};
use crate::{everybody, visitor::Visitor};

/// The command that everybody tries to give in somebody else's name.
const VICTIM: &str = "loam.v1.upgrade.apply_release";

fn all_but_bootstrap(town: &Town) -> Vec<(String, Visitor)> {
    let names = everybody().into_iter().map(|(name, _)| name).filter(|name| name != "bootstrap");
    names.map(|name| (name.clone(), town.visitor(&name))).collect()
}

/// Everything that was tried came to nothing at the victim's.
fn nothing_reached(victim: &mut Visitor) {
    let heard = victim.round();
    assert!(heard.messages.is_empty(), "{:?}", heard.messages);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_makes_a_push_consumer_that_delivers_to_anothers_command() {
    let town = Town::found().await;
    let mut victim = town.visitor("upgrade");
    victim.listen(VICTIM);
    for (name, mut visitor) in all_but_bootstrap(&town) {
        for table in contract::bucket::ALL.map(|table| table.name) {
            let config = format!(
                r#"{{"stream_name":"KV_{table}","config":{{"deliver_subject":"{VICTIM}","deliver_policy":"all","ack_policy":"none"}}}}"#
            );
            for word in [
                format!("CREATE.KV_{table}"),
                format!("CREATE.KV_{table}.evil"),
                format!("CREATE.KV_{table}.evil.$KV.{table}.>"),
                format!("DURABLE.CREATE.KV_{table}.evil"),
            ] {
                let subject = format!("$JS.API.CONSUMER.{word}");
                visitor.say(&subject, &format!("_INBOX_{name}.x"), &[], &config);
                let errors = visitor.round().errors;
                assert!(
                    errors.iter().any(|error| error.contains("Permissions Violation")),
                    "{name}: {subject}"
                );
            }
        }
    }
    nothing_reached(&mut victim);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_makes_or_changes_a_stream_that_repeats_onto_anothers_command() {
    let town = Town::found().await;
    let mut victim = town.visitor("upgrade");
    victim.listen(VICTIM);
    for (name, mut visitor) in all_but_bootstrap(&town) {
        for (verb, stream) in [("CREATE", "evil"), ("UPDATE", "KV_vms"), ("CREATE", "KV_operations")] {
            let config = format!(
                r#"{{"name":"{stream}","subjects":["{stream}.>"],"republish":{{"src":">","dest":"{VICTIM}"}}}}"#
            );
            let subject = format!("$JS.API.STREAM.{verb}.{stream}");
            visitor.say(&subject, &format!("_INBOX_{name}.x"), &[], &config);
            let errors = visitor.round().errors;
            assert!(errors.iter().any(|error| error.contains("Permissions Violation")), "{name}: {subject}");
        }
    }
    nothing_reached(&mut victim);
}

/// Opens the provisioner's desk for one word and notes which machines it was asked to stop.
async fn stopping(town: &Town) -> (bus::Serving, Arc<Mutex<Vec<VmName>>>) {
    let asked_for: Arc<Mutex<Vec<VmName>>> = Arc::default();
    let note = Arc::clone(&asked_for);
    let mut server = town.service(Service::Provisioner).await.server(card(Service::Provisioner));
    server.on::<StopVm, _, _>(move |asked| {
        note.lock().expect("no panic").push(asked.request.vm);
        std::future::ready(Ok::<_, Declined<VmRefused>>(Begun::Begun(OperationId::from_bits(7))))
    });
    (server.open().await.expect("open"), asked_for)
}

/// A question of a person's that is answered proves that the desk has seen everything that came before.
async fn ask_honestly(town: &Town) -> VmName {
    let honest = VmName::new("honest").expect("a name");
    let command = StopVm { vm: honest.clone(), operation_id: None };
    town.person().await.call(&command, Duration::from_secs(5)).await.expect("answered");
    honest
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_read_whose_reply_is_anothers_command_is_not_obeyed() {
    let town = Town::found().await;
    let (_open, asked_for) = stopping(&town).await;
    let mut witness = town.visitor("provisioner");
    witness.listen("loam.v1.provisioner.stop_vm");
    assert!(witness.round().errors.is_empty());
    // The server delivers stored bytes wherever the reader wishes: it has no rule against that.
    let mut thief = town.visitor("backup");
    thief.listen("_INBOX_backup.>");
    thief.say("$KV.operations.backup.evil", "_INBOX_backup.stored", &[], r#"{"vm":"stolen"}"#);
    thief.wait_for_message();
    let read = "$JS.API.DIRECT.GET.KV_operations.$KV.operations.backup.evil";
    thief.say(read, "loam.v1.provisioner.stop_vm", &[], "");
    let delivered = witness.wait_for_message();
    assert_eq!((delivered.body.as_str(), delivered.reply), (r#"{"vm":"stolen"}"#, None));
    let honest = ask_honestly(&town).await;
    assert_eq!(*asked_for.lock().expect("no panic"), [honest], "a letter without a way back is not obeyed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_names_anothers_command_as_its_way_back_is_not_answered() {
    let town = Town::found().await;
    let removed: Arc<Mutex<usize>> = Arc::default();
    let note = Arc::clone(&removed);
    let mut server = town.service(Service::Provisioner).await.server(card(Service::Provisioner));
    server.on::<RemoveVm, _, _>(move |_| {
        *note.lock().expect("no panic") += 1;
        std::future::ready(Ok::<_, Declined<VmRefused>>(Begun::Begun(OperationId::from_bits(7))))
    });
    let _open = server.open().await.expect("open");
    let mut victim = town.visitor("scheduler");
    victim.listen("loam.v1.scheduler.>");
    assert!(victim.round().errors.is_empty());
    let mut thief = town.visitor("backup");
    let command = "loam.v1.provisioner.remove_vm";
    thief.say(command, "loam.v1.scheduler.remove_schedule", &[], r#"{"vm":"web"}"#);
    thief.listen("_INBOX_backup.>");
    thief.say(command, "_INBOX_backup.honest", &[], r#"{"vm":"web"}"#);
    thief.wait_for_message();
    assert_eq!(*removed.lock().expect("no panic"), 1, "only the honest question is obeyed");
    nothing_reached(&mut victim);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_led_onto_another_command_by_a_person_is_not_obeyed() {
    let town = Town::found().await;
    let (_open, _) = stopping(&town).await;
    let obeyed: Arc<Mutex<usize>> = Arc::default();
    let note = Arc::clone(&obeyed);
    let mut server = town.service(Service::Scheduler).await.server(card(Service::Scheduler));
    server.on::<ListSchedules, _, _>(move |_| {
        *note.lock().expect("no panic") += 1;
        std::future::ready(Ok::<_, Declined<NoRefusal>>(Vec::new()))
    });
    let _scheduler_open = server.open().await.expect("open");
    let mut witness = town.visitor("scheduler");
    witness.listen("loam.v1.scheduler.list_schedules");
    assert!(witness.round().errors.is_empty());
    let mut person = town.visitor("operator");
    person.say("loam.v1.provisioner.stop_vm", "loam.v1.scheduler.list_schedules", &[], r#"{"vm":"web"}"#);
    // The server carries the answer over the border again, since that subject is exported; it has no way back.
    assert_eq!(witness.wait_for_message().reply, None);
    town.person().await.call(&ListSchedules {}, Duration::from_secs(5)).await.expect("answered");
    assert_eq!(*obeyed.lock().expect("no panic"), 1, "only the honest question is obeyed");
}
