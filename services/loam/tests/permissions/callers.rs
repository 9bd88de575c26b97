//! Who asks, on a real server with real handlers: a request that an account did not send itself is refused, and a reply
//! that is directed elsewhere is not obeyed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::{Bus, Caller, ErrorReply, RunningServer};
use contract::health::{CheckHealth, Health};
use contract::message::NeverRefused;
use contract::provisioner::{ListVms, OpenDisks};
use contract::scheduler::ListSchedules;
use contract::{OperationId, Request, Service, VmName};

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
