//! One suite for both carriers: what holds for the fake holds for the real thing.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::memory::MemoryTransport;
use bus::{
    Bus, CallError, Caller, CanaryError, Envelope, ErrorReply, ServiceInfo, TableError, Transport,
    TransportError,
};
use contract::message::{Failure, FailureKind};
use contract::permissions::User;
use contract::provisioner::{CloseDisks, GetVm, ListVms, Vm, VmChanged, VmRefused};
use contract::{HostName, NoPrevious, OperationId, Realm, Service, Stored, VmName, VmUuid, bucket};
use futures::StreamExt;
use testkit::NatsServer;

const SOON: Duration = Duration::from_secs(5);

struct Fixture {
    bus: Bus,
    transport: Arc<dyn Transport>,
    _server: Option<NatsServer>,
}

async fn on_memory() -> Fixture {
    let transport: Arc<dyn Transport> = Arc::new(MemoryTransport::new());
    Fixture { bus: Bus::new(Arc::clone(&transport), Realm::default()), transport, _server: None }
}

async fn on_nats() -> Fixture {
    let server = NatsServer::start();
    let connection = bus::nats::Connection {
        url: server.url(),
        nkey_file: None,
        ca_file: None,
        name: "suite".into(),
        user: User::Service(Service::Provisioner),
    };
    let transport = bus::nats::connect(&connection, SOON).await.expect("a server answers");
    bus::nats::bootstrap(&transport, Service::Provisioner, 1).await.expect("buckets can be made");
    let transport: Arc<dyn Transport> = Arc::new(transport);
    Fixture { bus: Bus::new(Arc::clone(&transport), Realm::default()), transport, _server: Some(server) }
}

macro_rules! on_both {
    ($($promise:ident),+ $(,)?) => {
        mod memory { $(#[tokio::test] async fn $promise() { super::$promise(super::on_memory().await).await; })+ }
        mod nats { $(#[tokio::test] async fn $promise() { super::$promise(super::on_nats().await).await; })+ }
    };
}

on_both!(
    a_question_gets_its_reply,
    a_refusal_comes_back_as_the_refusal_it_was,
    a_failure_comes_back_with_its_kind,
    nobody_there_is_said_at_once,
    a_request_sent_for_a_person_names_that_person,
    a_field_that_does_not_exist_is_refused_by_name,
    a_late_answer_is_an_error_within_the_deadline,
    a_question_in_json_is_answered_in_json,
    an_unreadable_question_is_answered_and_not_obeyed,
    an_oversized_question_is_answered_and_not_obeyed,
    an_event_reaches_every_listener,
    a_service_is_found_by_discovery_until_it_closes,
    a_row_is_created_once_and_changed_only_over_its_revision,
    all_rows_are_listed,
    a_row_is_read_from_the_leader_as_it_is,
    a_removed_row_can_be_created_again,
    a_row_that_cannot_be_read_is_set_aside_and_never_written_over,
    what_changed_after_a_revision_is_read,
    a_row_is_written_by_its_owner_whatever_became_of_the_one_before,
    more_rows_are_listed_than_one_answer_of_the_server_carries,
);

fn web() -> VmName {
    VmName::new("web").expect("valid")
}

fn info() -> ServiceInfo {
    ServiceInfo {
        service: Service::Provisioner,
        version: "0.1.0".into(),
        metadata: [("build".to_string(), "abc".to_string())].into(),
    }
}

async fn opened(bus: &Bus) -> (bus::RunningServer, Arc<AtomicUsize>) {
    let served = Arc::new(AtomicUsize::new(0));
    let mut server = bus.server(info());
    let count = Arc::clone(&served);
    server.on::<ListVms, _, _>(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async { Ok(Vec::new()) }
    });
    let count = Arc::clone(&served);
    server.on::<GetVm, _, _>(move |call| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            match call.request.vm.as_str() {
                "slow" => std::future::pending::<Result<Vm, ErrorReply<VmRefused>>>().await,
                "broken" => {
                    Err(Failure { kind: FailureKind::Unavailable, message: "libvirt is down".into() }.into())
                }
                _ => Err(ErrorReply::Refused(VmRefused::UnknownVm(call.request.vm))),
            }
        }
    });
    (server.open().await.expect("the server opens"), served)
}

fn get(name: &str) -> GetVm {
    GetVm { vm: VmName::new(name).expect("valid") }
}

async fn a_question_gets_its_reply(fixture: Fixture) {
    let (_running, _) = opened(&fixture.bus).await;
    assert_eq!(fixture.bus.call(&ListVms {}, SOON).await.expect("a reply"), Vec::new());
}

async fn a_refusal_comes_back_as_the_refusal_it_was(fixture: Fixture) {
    let (_running, _) = opened(&fixture.bus).await;
    match fixture.bus.call(&get("web"), SOON).await {
        Err(CallError::Refused(refusal)) => assert_eq!(refusal, VmRefused::UnknownVm(web())),
        other => panic!("{other:?}"),
    }
}

async fn a_failure_comes_back_with_its_kind(fixture: Fixture) {
    let (_running, _) = opened(&fixture.bus).await;
    match fixture.bus.call(&get("broken"), SOON).await {
        Err(CallError::Failed(failure)) => {
            assert_eq!(failure.kind, FailureKind::Unavailable);
            assert_eq!(failure.message, "libvirt is down");
        }
        other => panic!("{other:?}"),
    }
}

async fn a_request_sent_for_a_person_names_that_person(fixture: Fixture) {
    type Named = (Caller, Option<Caller>);
    let seen: Arc<Mutex<Vec<Named>>> = Arc::default();
    let seen_by_server = Arc::clone(&seen);
    let mut server = fixture.bus.server(info());
    server.on::<ListVms, _, _>(move |call| {
        seen_by_server.lock().expect("no panic").push((call.caller, call.on_behalf_of));
        async { Ok(Vec::new()) }
    });
    server.on::<CloseDisks, _, _>(|_| async { panic!("people may not send it") });
    let _running = server.open().await.expect("the server opens");
    let person = Caller::Person { user: "UALICE".into(), name: None };
    fixture.bus.call_for(&person, &ListVms {}, SOON).await.expect("a reply");
    fixture.bus.call_for(&Caller::Anonymous, &ListVms {}, SOON).await.expect("a reply");
    // Without accounts nobody is named.
    let expected = [(Caller::Anonymous, Some(person.clone())), (Caller::Anonymous, None)];
    assert_eq!(*seen.lock().expect("no panic"), expected);
    let close = CloseDisks { operation_id: OperationId::from_bits(7) };
    match fixture.bus.call_for(&person, &close, SOON).await {
        Err(CallError::Failed(failure)) => assert_eq!(failure.kind, FailureKind::NotAllowed),
        other => panic!("{other:?}"),
    }
}

async fn a_field_that_does_not_exist_is_refused_by_name(fixture: Fixture) {
    let (_running, served) = opened(&fixture.bus).await;
    for (body, content_type) in [
        (r#"{"vm":"broken","wm":1}"#.as_bytes().to_vec(), "application/json"),
        ([&b"\x82\xa2vm\xa6broken\xa2wm\x01"[..]].concat(), "application/msgpack"),
    ] {
        let headers = [("Content-Type".to_string(), content_type.to_string())];
        let envelope = Envelope {
            subject: "loam.v1.provisioner.get_vm".into(),
            headers: headers.into(),
            body: body.into(),
        };
        let answer = fixture.transport.request(envelope, SOON).await.expect("an answer");
        let text = &answer.headers["Nats-Service-Error"];
        assert!(text.contains("no field wm"), "{text}");
    }
    assert_eq!(served.load(Ordering::SeqCst), 0, "nothing was obeyed");
}

async fn nobody_there_is_said_at_once(fixture: Fixture) {
    match fixture.bus.call(&ListVms {}, SOON).await {
        Err(CallError::Transport { source: TransportError::NoResponder { subject }, .. }) => {
            assert_eq!(subject, "loam.v1.provisioner.list_vms");
        }
        other => panic!("{other:?}"),
    }
}

async fn a_late_answer_is_an_error_within_the_deadline(fixture: Fixture) {
    let (_running, _) = opened(&fixture.bus).await;
    match fixture.bus.call(&get("slow"), Duration::from_millis(200)).await {
        Err(CallError::Transport { source: TransportError::TimedOut { .. }, .. }) => {}
        other => panic!("{other:?}"),
    }
}

async fn raw(fixture: &Fixture, body: &'static [u8], content_type: Option<&str>) -> Envelope {
    let headers =
        content_type.map(|text| ("Content-Type".to_string(), text.to_string())).into_iter().collect();
    let subject = "loam.v1.provisioner.get_vm".to_string();
    fixture
        .transport
        .request(Envelope { subject, headers, body: body.into() }, SOON)
        .await
        .expect("an answer")
}

async fn a_question_in_json_is_answered_in_json(fixture: Fixture) {
    let (_running, _) = opened(&fixture.bus).await;
    let answer = raw(&fixture, br#"{"vm":"web"}"#, None).await;
    assert_eq!(answer.headers.get("Nats-Service-Error-Code").map(String::as_str), Some("409"));
    assert_eq!(&answer.body[..], br#"{"refused":{"unknown_vm":"web"}}"#);
    assert_eq!(answer.headers.get("Nats-Service-Error").map(String::as_str), Some("there is no VM web"));
}

async fn an_unreadable_question_is_answered_and_not_obeyed(fixture: Fixture) {
    let (_running, served) = opened(&fixture.bus).await;
    for (body, content_type) in [
        (&b"{\"vm\":\"web\""[..], None),
        (b"{\"vm\":\"No Name\"}", None),
        (b"{\"vm\":\"web\"} and more", None),
        (b"\x81\xa2vm\xa3web\xc0", Some("application/msgpack")),
        (b"\xff\xff\xff", None),
    ] {
        let answer = raw(&fixture, body, content_type).await;
        assert_eq!(
            answer.headers.get("Nats-Service-Error-Code").map(String::as_str),
            Some("400"),
            "{body:?}"
        );
    }
    assert_eq!(served.load(Ordering::SeqCst), 0);
}

async fn an_oversized_question_is_answered_and_not_obeyed(fixture: Fixture) {
    static BIG: [u8; bus::MESSAGE_BYTES_MAX + 1] = [b' '; bus::MESSAGE_BYTES_MAX + 1];
    let (_running, served) = opened(&fixture.bus).await;
    let answer = raw(&fixture, &BIG, Some("application/json")).await;
    assert_eq!(answer.headers.get("Nats-Service-Error-Code").map(String::as_str), Some("413"));
    assert_eq!(served.load(Ordering::SeqCst), 0);
}

async fn an_event_reaches_every_listener(fixture: Fixture) {
    let mut first = fixture.bus.subscribe::<VmChanged>().await.expect("listening");
    let mut second = fixture.bus.subscribe::<VmChanged>().await.expect("listening");
    let event = VmChanged {
        host: HostName::new("h1").expect("a good name"),
        uuid: VmUuid::new("0b2d1b9e-5f0f-4e0b-8a4e-0d5f1b9e5f0f").expect("a UUID"),
        name: web(),
        vm: None,
    };
    fixture.bus.publish(&event).await.expect("published");
    for listener in [&mut first, &mut second] {
        let (received, _) =
            tokio::time::timeout(SOON, listener.next()).await.expect("in time").expect("an event");
        assert_eq!(received, event);
    }
}

async fn a_service_is_found_by_discovery_until_it_closes(fixture: Fixture) {
    let (opened, _) = opened(&fixture.bus).await;
    let wait = Duration::from_millis(300);
    let found = fixture.bus.discover(wait).await.expect("discovery");
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].name.as_str(), found[0].version.as_str()), ("provisioner", "0.1.0"));
    assert_eq!(found[0].metadata.get("build").map(String::as_str), Some("abc"));
    opened.close().await;
    testkit::eventually("the closed opened is no longer found", async || {
        fixture.bus.discover(wait).await.is_ok_and(|found| found.is_empty())
    })
    .await;
}

/// A row of a test.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Numbered {
    number: u32,
}

impl Stored for Numbered {
    const VERSION: u16 = 1;
    type Previous = NoPrevious;

    fn migrate(previous: NoPrevious) -> Numbered {
        match previous {}
    }
}

fn row(number: u32) -> Numbered {
    Numbered { number }
}

async fn a_row_is_created_once_and_changed_only_over_its_revision(fixture: Fixture) {
    let table = fixture.bus.table::<Numbered>(bucket::SEEDS);
    let first = table.create("debian", &row(1)).await.expect("created");
    assert!(matches!(table.create("debian", &row(2)).await, Err(TableError::Conflict { .. })));
    let second = table.update("debian", &row(2), first).await.expect("updated");
    assert!(matches!(table.update("debian", &row(3), first).await, Err(TableError::Conflict { .. })));
    assert!(matches!(table.remove("debian", first).await, Err(TableError::Conflict { .. })));
    let read = table.get("debian").await.expect("read").expect("there");
    assert_eq!((read.value, read.revision), (row(2), second));
    assert_eq!(table.get("arch").await.expect("read"), None);
}

async fn all_rows_are_listed(fixture: Fixture) {
    let table = fixture.bus.table::<Numbered>(bucket::OPERATIONS);
    assert_eq!(table.all().await.expect("listed").read, Vec::new());
    for (key, number) in [("a", 1), ("b", 2), ("c.d", 3)] {
        table.create(key, &row(number)).await.expect("created");
    }
    let mut keys: Vec<String> = table.all().await.expect("listed").read.into_iter().map(|r| r.key).collect();
    keys.sort();
    assert_eq!(keys, ["a", "b", "c.d"]);
}

async fn a_row_is_read_from_the_leader_as_it_is(fixture: Fixture) {
    let table = fixture.bus.table::<Numbered>(bucket::SEEDS);
    assert_eq!(table.get_from_leader("debian").await.expect("read"), None);
    let revision = table.create("debian", &row(1)).await.expect("created");
    let found = table.get_from_leader("debian").await.expect("read").expect("there");
    assert_eq!((found.value, found.revision), (row(1), revision));
    table.remove("debian", revision).await.expect("removed");
    assert_eq!(table.get_from_leader("debian").await.expect("read"), None);
}

async fn a_removed_row_can_be_created_again(fixture: Fixture) {
    let table = fixture.bus.table::<Numbered>(bucket::SEEDS);
    let revision = table.create("x", &row(1)).await.expect("created");
    table.remove("x", revision).await.expect("removed");
    assert_eq!(table.get("x").await.expect("read"), None);
    assert_eq!(table.all().await.expect("listed").read, Vec::new());
    table.create("x", &row(2)).await.expect("created again");
    assert_eq!(table.get("x").await.expect("read").map(|row| row.value), Some(row(2)));
}

async fn a_row_that_cannot_be_read_is_set_aside_and_never_written_over(fixture: Fixture) {
    let table = fixture.bus.table::<Numbered>(bucket::SEEDS);
    table.create("good", &row(1)).await.expect("created");
    let later = b"\x92\x02\x81\xa6number\x07";
    let bad: [(&str, &'static [u8]); 3] = [("later", later), ("damaged", b"\x92\x01\xc1"), ("empty", b"")];
    for (key, bytes) in bad {
        fixture.transport.put(bucket::SEEDS.name, key, bytes.into(), 0).await.expect("put");
    }
    let mut keys: Vec<&str> = bad.iter().map(|(key, _)| *key).collect();
    keys.sort_unstable();
    let set_aside = || fixture.bus.unreadable_rows().into_iter().map(|row| row.key).collect::<Vec<_>>();
    let rows = table.all().await.expect("listed");
    assert_eq!(rows.read.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), ["good"]);
    assert_eq!(set_aside(), keys);
    for (key, bytes) in bad {
        let refused = table.create(key, &row(2)).await;
        assert!(
            matches!(&refused, Err(TableError::Unreadable { key: named, .. }) if named == key),
            "{refused:?}"
        );
        assert!(matches!(table.get(key).await, Err(TableError::Unreadable { .. })), "{key}");
        let stored = fixture.transport.get(bucket::SEEDS.name, key).await.expect("read").expect("there");
        assert_eq!(&stored.value[..], bytes, "{key}");
    }
    // A version that can read it wrote it again.
    let stored = fixture.transport.get(bucket::SEEDS.name, "later").await.expect("read").expect("there");
    let readable = b"\x92\x01\x81\xa6number\x07".as_slice();
    fixture.transport.put(bucket::SEEDS.name, "later", readable.into(), stored.revision).await.expect("put");
    assert_eq!(table.get("later").await.expect("read").map(|row| row.value), Some(row(7)));
    assert_eq!(set_aside(), ["damaged", "empty"]);
}

async fn what_changed_after_a_revision_is_read(fixture: Fixture) {
    let table = fixture.bus.table::<Numbered>(bucket::OPERATIONS);
    let nothing = table.changes(0).await.expect("read");
    assert_eq!((nothing.read, nothing.removed, nothing.revision), (vec![], vec![], 0));
    let first = table.create("a", &row(1)).await.expect("created");
    table.create("b", &row(2)).await.expect("created");
    let changes = table.changes(0).await.expect("read");
    let keys: Vec<_> = changes.read.iter().map(|row| row.key.as_str()).collect();
    assert_eq!((keys, changes.is_partial), (vec!["a", "b"], false));
    let second = table.update("b", &row(3), changes.revision).await.expect("updated");
    table.remove("a", first).await.expect("removed");
    fixture.bus.check_table(&bucket::OPERATIONS).await.expect("canaries are not shown");
    let changes = table.changes(changes.revision).await.expect("read");
    let read: Vec<_> = changes.read.iter().map(|row| (row.value.clone(), row.revision)).collect();
    let removed: Vec<_> = changes.removed.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!((read, removed), (vec![(row(3), second)], vec!["a"]));
    let again = table.changes(changes.revision).await.expect("read");
    assert_eq!((again.read, again.removed), (vec![], vec![]));
}

async fn a_row_is_written_by_its_owner_whatever_became_of_the_one_before(fixture: Fixture) {
    let table = fixture.bus.table::<Numbered>(bucket::SEEDS);
    let first = table.create("debian", &row(1)).await.expect("created");
    let second = table.update_owned("debian", &row(2), first).await.expect("updated");
    let again = table.update_owned("debian", &row(2), first).await.expect("an answer was lost");
    assert_eq!(again, second);
    assert!(matches!(table.update_owned("debian", &row(3), first).await, Err(TableError::Conflict { .. })));
    table.remove("debian", second).await.expect("removed");
    table.update_owned("debian", &row(4), second).await.expect("written anew");
    assert_eq!(table.get("debian").await.expect("read").map(|row| row.value), Some(row(4)));
}

/// `lose` removes the table and makes it anew.
async fn is_found_to_be_another_table(bus: &Bus, lose: impl AsyncFnOnce()) {
    let generation = bus.table::<Numbered>(bucket::SEEDS).generation();
    for _ in 0..2 {
        bus.check_table(&bucket::SEEDS).await.expect("writable");
    }
    assert_eq!(*generation.borrow(), 0);
    lose().await;
    bus.check_table(&bucket::SEEDS).await.expect("writable");
    assert_eq!(*generation.borrow(), 1);
    bus.check_table(&bucket::SEEDS).await.expect("writable");
    assert_eq!(*generation.borrow(), 1);
}

#[tokio::test]
async fn a_table_that_was_lost_and_made_anew_is_noticed_in_memory() {
    let transport = MemoryTransport::new();
    let bus = Bus::new(Arc::new(transport.clone()), Realm::default());
    is_found_to_be_another_table(&bus, async || transport.lose_table(bucket::SEEDS.name)).await;
}

#[tokio::test]
async fn a_table_that_was_lost_and_made_anew_is_noticed_on_nats() {
    let Fixture { bus, _server, .. } = on_nats().await;
    let url = _server.as_ref().expect("on nats there is one").url();
    let lose = async || {
        let client = async_nats::connect(&url).await.expect("connected");
        client.request("$JS.API.STREAM.DELETE.KV_seeds", "".into()).await.expect("removed");
        let missing = bus.check_table(&bucket::SEEDS).await;
        assert!(matches!(missing, Err(CanaryError::Missing(_))), "{missing:?}");
        let connection = bus::nats::Connection {
            url: url.clone(),
            nkey_file: None,
            ca_file: None,
            name: "suite".into(),
            user: User::Service(Service::Provisioner),
        };
        let transport = bus::nats::connect(&connection, SOON).await.expect("a server answers");
        bus::nats::bootstrap(&transport, Service::Provisioner, 1).await.expect("made again");
    };
    is_found_to_be_another_table(&bus, lose).await;
}

async fn more_rows_are_listed_than_one_answer_of_the_server_carries(fixture: Fixture) {
    let table = fixture.bus.table::<Numbered>(bucket::VMS);
    let writes = (0..3000).map(|number| {
        let table = table.clone();
        async move {
            let key = format!("vm-{number}");
            let first = table.create(&key, &row(0)).await.expect("created");
            // Some have more than one revision, some are gone.
            match number % 10 {
                0 => table.remove(&key, first).await.expect("removed"),
                1 => drop(table.update(&key, &row(number), first).await.expect("updated")),
                _ => {}
            }
        }
    });
    futures::stream::iter(writes).buffer_unordered(64).collect::<Vec<()>>().await;
    let rows = table.all().await.expect("listed").read;
    let keys: std::collections::BTreeSet<&str> = rows.iter().map(|row| row.key.as_str()).collect();
    assert_eq!((rows.len(), keys.len()), (2700, 2700));
    for read in rows {
        let number: u32 = read.key["vm-".len()..].parse().expect("a number");
        assert_eq!(read.value.number, if number % 10 == 1 { number } else { 0 }, "{}", read.key);
    }
}

#[tokio::test]
async fn an_asker_learns_of_a_lost_server_at_once_and_is_served_again_when_it_is_back() {
    let Fixture { bus, transport, _server } = on_nats().await;
    let mut server = _server.expect("on nats there is one");
    let (_running, _) = opened(&bus).await;
    let call = bus.clone();
    let waiting = tokio::spawn(async move { call.call(&get("slow"), Duration::from_secs(120)).await });
    testkit::eventually("the request is under way", async || bus.call(&ListVms {}, SOON).await.is_ok()).await;
    server.kill();
    match tokio::time::timeout(SOON, waiting).await.expect("soon").expect("no panic") {
        Err(CallError::Transport { source: TransportError::Disconnected { .. }, .. }) => {}
        other => panic!("{other:?}"),
    }
    server.revive();
    testkit::eventually("it is served again", async || {
        transport.is_connected() && bus.call(&ListVms {}, SOON).await.is_ok()
    })
    .await;
}
