//! The proxy as a service: told about machines over the bus, it leads real HTTP to them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::memory::MemoryTransport;
use bus::{Bus, RunningServer};
use contract::provisioner::{DomainRoute, ListVms, Vm, VmChanged, VmDefinition, VmState};
use contract::proxy::{ListRoutes, RouteTarget};
use contract::{ByteCount, Realm, Service};
use proxy::config::Config;
use testkit::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(10);

fn vm(name: &str, domain: &str, state: VmState, backend: SocketAddr) -> Vm {
    Vm {
        definition: VmDefinition {
            name: name.parse().expect("valid"),
            seed: "tiny".parse().expect("valid"),
            cpu_count: 1,
            ram_size: ByteCount::mib(256),
            disk_size: ByteCount::gib(1),
            domains: vec![DomainRoute { domain: domain.parse().expect("valid"), port: backend.port() }],
            env: Default::default(),
            install: Vec::new(),
        },
        uuid: "0b2d1b9e-5f0f-4e0b-8a4e-0d5f1b9e5f0f".into(),
        mac: "52:54:00:00:00:01".into(),
        host: "h1".parse().expect("valid"),
        state,
        address: Some(backend.ip().to_string()),
        locked_by: None,
        created: "2026-11-22T06:30:00Z".parse().expect("valid"),
        hypervisor: "simulated".into(),
    }
}

/// A page behind a port of the system's choice.
async fn page() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = [0; 1024];
            if client.read(&mut head).await.is_ok() {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\npage";
                // A client that left before its answer is no concern of the page's.
                drop(client.write_all(answer).await);
            }
        }
    });
    address
}

async fn answer(proxy: SocketAddr, host: &str) -> String {
    let mut stream = TcpStream::connect(proxy).await.expect("the front listens");
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("answered");
    answer
}

async fn status(proxy: SocketAddr, host: &str) -> u16 {
    answer(proxy, host).await.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

async fn provisioner(bus: &Bus, vms: &Arc<Mutex<Vec<Vm>>>) -> Serving {
    let mut server = bus.server(bus::ServiceInfo {
        service: Service::Provisioner,
        version: "0.1.0".into(),
        metadata: Default::default(),
    });
    let vms = Arc::clone(vms);
    server.on::<ListVms, _, _>(move |_| {
        let vms = vms.lock().expect("no panic").clone();
        async move { Ok(vms) }
    });
    server.open().await.expect("opens")
}

async fn proxy_on(carrier: &MemoryTransport) -> (SocketAddr, Serving) {
    let (address, serving, _) = whole_proxy_on(carrier).await;
    (address, serving)
}

/// The proxy, its open desk, and what the chassis gets beside its endpoints.
async fn whole_proxy_on(carrier: &MemoryTransport) -> (SocketAddr, Serving, chassis::Service) {
    let bus = Bus::new(Arc::new(carrier.clone()), Realm::default());
    let config = Config { http_listen: "127.0.0.1:0".parse().expect("valid"), trusted_networks: Vec::new() };
    let mut built = proxy::open(bus.clone(), config).await.expect("opens");
    let mut server = bus.server(bus::ServiceInfo {
        service: Service::Proxy,
        version: "0.1.0".into(),
        metadata: Default::default(),
    });
    built.endpoints.take().expect("the proxy has endpoints")(&mut server);
    let serving = server.open().await.expect("opens");
    let routes = bus.call(&ListRoutes {}, SOON).await.expect("answered");
    (routes.http_listener.parse().expect("an address"), serving, built)
}

#[actix::test]
async fn traffic_follows_what_is_told_about_a_machine() {
    let carrier = MemoryTransport::new();
    let bus = Bus::new(Arc::new(carrier.clone()), Realm::default());
    let backend = page().await;
    let vms = Arc::new(Mutex::new(Vec::new()));
    let _provisioner = provisioner(&bus, &vms).await;
    let (proxy, _desk) = proxy_on(&carrier).await;
    assert_eq!(status(proxy, "web.example").await, 404);

    let tell = async |state: Option<VmState>| {
        let vm = state.map(|state| vm("web", "web.example", state, backend));
        *vms.lock().expect("no panic") = vm.iter().cloned().collect();
        bus.publish(&VmChanged { name: "web".parse().expect("valid"), vm }).await.expect("told");
    };
    tell(Some(VmState::Ready)).await;
    eventually("the page is reached", async || status(proxy, "web.example").await == 200).await;
    tell(Some(VmState::Stopped)).await;
    eventually("the page is away", async || status(proxy, "web.example").await == 503).await;
    let rows = bus.call(&ListRoutes {}, SOON).await.expect("answered").routes;
    assert_eq!(rows[0].target, RouteTarget::Unavailable("stopped".into()));
    let page = answer(proxy, "web.example").await.to_ascii_lowercase();
    assert!(page.contains("\r\nretry-after: 60\r\n"), "{page}");
    tell(None).await;
    eventually("the route is gone", async || status(proxy, "web.example").await == 404).await;
}

#[actix::test]
async fn a_proxy_that_starts_without_the_provisioner_leads_traffic_where_it_went_before() {
    let carrier = MemoryTransport::new();
    let bus = Bus::new(Arc::new(carrier.clone()), Realm::default());
    let backend = page().await;
    let vms = Arc::new(Mutex::new(vec![vm("web", "web.example", VmState::Ready, backend)]));
    let provisioner = provisioner(&bus, &vms).await;
    let (first, desk) = proxy_on(&carrier).await;
    eventually("the page is reached", async || status(first, "web.example").await == 200).await;
    let row = bus.table::<Vec<proxy_domain::KnownVm>>(contract::bucket::ROUTES);
    eventually("it is remembered", async || row.get("known").await.expect("readable").is_some()).await;

    desk.close().await;
    provisioner.close().await;
    let (second, _desk) = proxy_on(&carrier).await;
    eventually("the page is reached", async || status(second, "web.example").await == 200).await;
}

#[actix::test]
async fn a_domain_that_two_machines_claim_stays_with_the_first() {
    let carrier = MemoryTransport::new();
    let bus = Bus::new(Arc::new(carrier.clone()), Realm::default());
    let (backend, other) = (page().await, page().await);
    let first = vm("web", "web.example", VmState::Ready, backend);
    let mut second = vm("also", "web.example", VmState::Ready, other);
    second.created += Duration::from_secs(60);
    let vms = Arc::new(Mutex::new(vec![second, first]));
    let _provisioner = provisioner(&bus, &vms).await;
    let (_, _desk) = proxy_on(&carrier).await;
    let target = async || {
        let routes = bus.call(&ListRoutes {}, SOON).await.expect("answered").routes;
        routes.into_iter().next().map(|row| (row.vm.to_string(), row.target))
    };
    let expected = ("web".to_string(), RouteTarget::Address(backend.to_string()));
    eventually("the domain is routed", async || target().await.is_some()).await;
    assert_eq!(target().await, Some(expected));

    let gone = VmChanged { name: "web".parse().expect("valid"), vm: None };
    vms.lock().expect("no panic").pop();
    bus.publish(&gone).await.expect("told");
    let expected = ("also".to_string(), RouteTarget::Address(other.to_string()));
    eventually("the second gets it when the first lets go", async || {
        target().await == Some(expected.clone())
    })
    .await;
}

#[actix::test]
async fn a_change_that_nobody_told_is_noticed_at_the_next_reading() {
    let carrier = MemoryTransport::new();
    let bus = Bus::new(Arc::new(carrier.clone()), Realm::default());
    let backend = page().await;
    let vms = Arc::new(Mutex::new(Vec::new()));
    let _provisioner = provisioner(&bus, &vms).await;
    let (proxy, _desk) = proxy_on(&carrier).await;
    *vms.lock().expect("no panic") = vec![vm("web", "web.example", VmState::Ready, backend)];
    eventually("the page is reached", async || status(proxy, "web.example").await == 200).await;
}

#[actix::test]
async fn a_provisioner_that_is_away_is_told_as_trouble_until_it_is_back() {
    let carrier = MemoryTransport::new();
    let bus = Bus::new(Arc::new(carrier.clone()), Realm::default());
    let (_, _desk, built) = whole_proxy_on(&carrier).await;
    let (part, check) = &built.parts[0];
    assert_eq!(*part, "routes");
    let trouble = check().await.expect("nobody lists machines");
    assert!(trouble.contains("provisioner"), "{trouble}");
    let _provisioner = provisioner(&bus, &Arc::default()).await;
    eventually("it is well", async || check().await.is_none()).await;
}

#[actix::test]
async fn a_request_under_way_is_answered_before_the_proxy_ends() {
    let carrier = MemoryTransport::new();
    let bus = Bus::new(Arc::new(carrier.clone()), Realm::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let backend = listener.local_addr().expect("bound");
    let vms = Arc::new(Mutex::new(vec![vm("web", "web.example", VmState::Ready, backend)]));
    let _provisioner = provisioner(&bus, &vms).await;
    let (proxy, _desk, built) = whole_proxy_on(&carrier).await;
    eventually("the domain is routed", async || {
        let routes = bus.call(&ListRoutes {}, SOON).await.expect("answered").routes;
        routes.iter().any(|row| matches!(row.target, RouteTarget::Address(_)))
    })
    .await;
    let asked = tokio::spawn(async move { answer(proxy, "web.example").await });
    let (mut machine, _) = listener.accept().await.expect("the request comes");
    let mut head = [0; 1024];
    assert!(machine.read(&mut head).await.expect("asked") > 0);

    let ending = tokio::spawn(built.end.expect("the front ends in order"));
    eventually("nothing new is accepted", async || TcpStream::connect(proxy).await.is_err()).await;
    let late = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate";
    machine.write_all(late).await.expect("answered");
    assert!(asked.await.expect("no panic").ends_with("late"));
    ending.await.expect("it ends");
}
