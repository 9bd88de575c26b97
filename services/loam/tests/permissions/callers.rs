//! Who asks, on a real server with real handlers: a request that an account did not send itself is refused, and a reply
//! that is directed elsewhere is not obeyed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::{Bus, CallError, Caller, Destination, ErrorReply, RunningServer};
use contract::health::{CheckHealth, Health};
use contract::message::NeverRefused;
use contract::provisioner::{ListVms, OpenDisks, OpenDisksRefused, OpenedDisks};
use contract::scheduler::ListSchedules;
use contract::{HostName, OperationId, Request, Service, VmName};

use crate::test_bus::{TestBus, info};

const SOON: Duration = Duration::from_secs(5);

type Seen = Arc<Mutex<Vec<Caller>>>;

/// The provisioner's `list_vms`, which notes who asks.
async fn listing(bus: &Bus) -> (RunningServer, Seen) {
    let seen = Seen::default();
    let note = Arc::clone(&seen);
    let mut server = bus.server(info(Service::Provisioner));
    server.on::<ListVms, _, _>(move |call| {
        note.lock().expect("no panic").push(call.caller);
        std::future::ready(Ok::<_, ErrorReply<NeverRefused>>(Vec::new()))
    });
    (server.open().await.expect("open"), seen)
}

fn seen(seen: &Seen) -> Vec<Caller> {
    seen.lock().expect("no panic").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_sent_on_to_a_request_of_another_service_is_not_obeyed() {
    let test_bus = TestBus::start().await;
    let (_open, callers) = listing(&test_bus.service(Service::Provisioner).await).await;
    let mut witness = test_bus.raw_service(Service::Provisioner);
    witness.subscribe("loam.v1.provisioner.list_vms");
    assert!(witness.round().errors.is_empty());
    // The server sends a row to any subject that its reader may use; a header in the row does not hide who that was.
    let mut attacker = test_bus.raw_service(Service::Proxy);
    attacker.subscribe("_INBOX_proxy.>");
    let forged = ["Nats-Request-Info: {\"acc\":\"PEOPLE\",\"user\":\"U\",\"kind\":\"Client\"}"];
    attacker.publish("$KV.routes.evil", "_INBOX_proxy.stored", &forged, "{}");
    attacker.wait_for_message();
    let read = "$JS.API.DIRECT.GET.KV_routes.$KV.routes.evil";
    attacker.publish(read, "loam.v1.provisioner.list_vms", &[], "");
    let delivered = witness.wait_for_message();
    assert!(delivered.headers.contains("\"acc\":\"PROXY\""), "{}", delivered.headers);
    assert!(delivered.headers.contains("\"kind\":\"JetStream\""), "{}", delivered.headers);
    let honest = test_bus.service(Service::Proxy).await;
    honest.call(&ListVms {}, SOON).await.expect("answered");
    assert_eq!(seen(&callers), [Caller::Service(Service::Proxy)], "only the honest request is obeyed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_a_person_directs_to_another_command_is_not_obeyed() {
    let test_bus = TestBus::start().await;
    let (_open, _) = listing(&test_bus.service(Service::Provisioner).await).await;
    let obeyed: Arc<Mutex<usize>> = Arc::default();
    let note = Arc::clone(&obeyed);
    let mut server = test_bus.service(Service::Scheduler).await.server(info(Service::Scheduler));
    server.on::<ListSchedules, _, _>(move |_| {
        *note.lock().expect("no panic") += 1;
        std::future::ready(Ok::<_, ErrorReply<NeverRefused>>(Vec::new()))
    });
    let _scheduler_open = server.open().await.expect("open");
    let mut person = test_bus.raw_person();
    person.publish("loam.v1.provisioner.list_vms", "loam.v1.scheduler.list_schedules", &[], "{}");
    assert!(person.round().errors.is_empty());
    let bus = test_bus.person().await;
    bus.call(&ListVms {}, SOON).await.expect("answered after the one before");
    bus.call(&ListSchedules {}, SOON).await.expect("answered");
    assert_eq!(*obeyed.lock().expect("no panic"), 1, "only the honest request is obeyed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_asks_itself_on_a_subject_that_no_other_account_reaches() {
    let test_bus = TestBus::start().await;
    let bus = test_bus.service(Service::Upgrade).await;
    let mut server = bus.server(info(Service::Upgrade));
    server.on::<CheckHealth, _, _>(|call| async move {
        assert_eq!(call.caller, Caller::Service(Service::Upgrade));
        Ok::<Health, ErrorReply<NeverRefused>>(health())
    });
    let _open = server.open().await.expect("open");
    bus.call_at(Service::Upgrade, &CheckHealth {}, SOON).await.expect("answered");
    for service in Service::FIVE {
        if service != Service::Upgrade {
            let mut other = test_bus.raw_service(service);
            assert!(!other.may_publish("loam.v1.upgrade.internal.check_health"), "{service}");
        }
    }
}

/// Two hosts: the provisioner of h1 receives what that of h2 has to answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_one_host_passes_on_to_another_stays_the_callers() {
    let test_bus = TestBus::start().await;
    let [h1, h2] =
        [test_bus.service(Service::Provisioner).await, test_bus.service(Service::Provisioner).await];
    let host = HostName::new("h2").expect("a name");
    let (callers, note) = (Seen::default(), Seen::default());
    let (noted, place) = (Arc::clone(&note), Destination::on(Service::Provisioner, &host));
    let mut server = h1.server(info(Service::Provisioner));
    let bus = h1.clone();
    server.on::<ListVms, _, _>(move |call| {
        noted.lock().expect("no panic").push(call.caller.clone());
        let (bus, place) = (bus.clone(), place.clone());
        async move { bus.forward(place, call, SOON).await }
    });
    let _first = server.open().await.expect("open");
    let mut server = h2.server(info(Service::Provisioner));
    let seen_there = Arc::clone(&callers);
    server.on_forwarded::<ListVms, _, _>(&host, move |call| {
        seen_there.lock().expect("no panic").push(call.caller);
        std::future::ready(Ok::<_, ErrorReply<NeverRefused>>(Vec::new()))
    });
    let at_h2 = Arc::clone(&callers);
    server.on_host::<OpenDisks, _, _>(&host, move |call| {
        at_h2.lock().expect("no panic").push(call.caller);
        let unknown = OpenDisksRefused::UnknownVm(call.request.vm);
        std::future::ready(Err::<OpenedDisks, _>(ErrorReply::Refused(unknown)))
    });
    let _second = server.open().await.expect("open");

    let person = test_bus.person().await;
    person.call(&ListVms {}, SOON).await.expect("answered by the other host");
    test_bus.service(Service::Proxy).await.call(&ListVms {}, SOON).await.expect("answered");
    assert_eq!(seen(&callers), seen(&note));
    assert!(matches!(seen(&callers)[..], [Caller::Person { .. }, Caller::Service(Service::Proxy)]));
    // The backup service sends to its own host.
    let open = OpenDisks { vm: VmName::new("web").expect("a name"), operation_id: OperationId::from_bits(7) };
    let backup = test_bus.service(Service::Backup).await;
    let there = Destination::on(Service::Provisioner, &host);
    let refused = backup.call_at(there, &open, SOON).await.expect_err("no such VM");
    assert!(matches!(refused, CallError::Refused(OpenDisksRefused::UnknownVm(_))), "{refused}");
    assert_eq!(seen(&callers).last(), Some(&Caller::Service(Service::Backup)));

    // Nobody else reaches what is passed on, and a header alone makes nobody an instance.
    let mut raw = test_bus.raw_person();
    assert!(!raw.may_publish("loam.v1.provisioner.internal.list_vms.h2"));
    raw.subscribe("_INBOX_operator.>");
    let forged = ["Loam-Forwarded-For: {\"caller\":{\"service\":\"proxy\"}}"];
    raw.publish("loam.v1.provisioner.list_vms", "_INBOX_operator.forged", &forged, "{}");
    let answer = raw.wait_for_message();
    assert!(answer.headers.contains("403"), "{}", answer.headers);
    for service in Service::FIVE.into_iter().filter(|service| *service != Service::Provisioner) {
        let mut other = test_bus.raw_service(service);
        assert!(!other.may_publish("loam.v1.provisioner.internal.list_vms.h2"), "{service}");
    }
}

fn health() -> Health {
    Health {
        service: Service::Upgrade,
        version: "0.1.0".into(),
        build: "0".into(),
        instance: "1".into(),
        since: chrono::Utc::now(),
        parts: Vec::new(),
        notices: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_the_account_does_not_import_reaches_nobody() {
    let test_bus = TestBus::start().await;
    let proxy = test_bus.service(Service::Proxy).await;
    let vm = VmName::new("web").expect("a name");
    let open = OpenDisks { vm, operation_id: OperationId::from_bits(7) };
    let error = proxy.call(&open, Duration::from_millis(500)).await.expect_err(OpenDisks::NAME);
    assert!(matches!(error, bus::CallError::Transport { .. }), "{error}");
}
