//! The proxy as a service: it learns of VMs over the bus and forwards real HTTP requests to them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::memory::MemoryTransport;
use bus::{Bus, RunningServer};
use contract::provisioner::{DomainRoute, ListVms, Vm, VmChanged, VmDefinition, VmState};
use contract::proxy::{ListRoutes, RouteTarget};
use contract::{ByteCount, Realm, Service, VmUuid};
use proxy::adapters::frontend::{HttpFrontend, Settings};
use proxy_domain::Reach;
use testkit::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const TIMEOUT: Duration = Duration::from_secs(10);

/// One for each name.
fn uuid(name: &str) -> VmUuid {
    let end: u64 = name.bytes().map(u64::from).sum();
    format!("0b2d1b9e-5f0f-4e0b-8a4e-{end:012x}").parse().expect("valid")
}

fn changed(name: &str, vm: Option<Vm>) -> VmChanged {
    VmChanged { host: "h1".parse().expect("valid"), uuid: uuid(name), name: name.parse().expect("valid"), vm }
}

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
        uuid: uuid(name),
        mac: "52:54:00:00:00:01".parse().expect("valid"),
        pause_reason: None,
        problem: None,
        host: "h1".parse().expect("valid"),
        state,
        address: Some(backend.ip()),
        locked_by: None,
        created: "2026-11-22T06:30:00Z".parse().expect("valid"),
        hypervisor: "simulated".into(),
        variables: Vec::new(),
        scripts: Vec::new(),
        emulation_reason: None,
    }
}

/// An upstream that responds to every request with a page.
async fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = [0; 1024];
            if client.read(&mut head).await.is_ok() {
                let response = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\npage";
                // The client may have closed the connection.
                drop(client.write_all(response).await);
            }
        }
    });
    address
}

async fn fetch(proxy: SocketAddr, host: &str) -> String {
    let mut stream = TcpStream::connect(proxy).await.expect("the frontend listens");
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).await.expect("replied");
    response
}

async fn status(proxy: SocketAddr, host: &str) -> u16 {
    fetch(proxy, host).await.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

async fn provisioner(bus: &Bus, vms: &Arc<Mutex<Vec<Vm>>>) -> RunningServer {
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

/// A proxy on the bus, and everything that ends with it.
struct Proxy {
    address: SocketAddr,
    server: RunningServer,
    running: chassis::StartedService,
}

impl Proxy {
    async fn on(transport: &MemoryTransport) -> Proxy {
        let bus = Bus::new(Arc::new(transport.clone()), Realm::default());
        let address = "127.0.0.1:0".parse().expect("valid");
        let frontend = HttpFrontend::start(address, Settings::default()).await.expect("a free port");
        let service =
            proxy::open(bus.clone(), Arc::new(frontend), Reach::OneHost("h1".parse().expect("valid")));
        let mut server = bus.server(bus::ServiceInfo {
            service: Service::Proxy,
            version: "0.1.0".into(),
            metadata: Default::default(),
        });
        let running = service.serve(&mut server);
        let server = server.open().await.expect("opens");
        let routes = bus.call(&ListRoutes {}, TIMEOUT).await.expect("replied");
        Proxy { address: routes.http_listener.parse().expect("an address"), server, running }
    }

    async fn end(self) {
        self.server.close().await;
        self.running.shut_down().await;
    }
}

#[actix::test]
async fn routes_follow_vm_changed_events() {
    let transport = MemoryTransport::new();
    let bus = Bus::new(Arc::new(transport.clone()), Realm::default());
    let backend = upstream().await;
    let vms = Arc::new(Mutex::new(Vec::new()));
    let _provisioner = provisioner(&bus, &vms).await;
    let proxy = Proxy::on(&transport).await;
    assert_eq!(status(proxy.address, "web.example").await, 404);

    let report = async |state: Option<VmState>| {
        let vm = state.map(|state| vm("web", "web.example", state, backend));
        *vms.lock().expect("no panic") = vm.iter().cloned().collect();
        bus.publish(&changed("web", vm)).await.expect("published");
    };
    report(Some(VmState::Ready)).await;
    report(Some(VmState::Unknown)).await;
    eventually("the upstream responds", async || status(proxy.address, "web.example").await == 200).await;
    report(Some(VmState::Stopped)).await;
    eventually("the VM is down", async || status(proxy.address, "web.example").await == 503).await;
    let rows = bus.call(&ListRoutes {}, TIMEOUT).await.expect("replied").routes;
    assert_eq!(rows[0].target, RouteTarget::Unavailable("stopped".into()));
    let page = fetch(proxy.address, "web.example").await.to_ascii_lowercase();
    assert!(page.contains("\r\nretry-after: 60\r\n"), "{page}");
    report(None).await;
    eventually("the route is removed", async || status(proxy.address, "web.example").await == 404).await;
}

#[actix::test]
async fn a_proxy_that_starts_without_the_provisioner_has_the_routes_it_had_before() {
    let transport = MemoryTransport::new();
    let bus = Bus::new(Arc::new(transport.clone()), Realm::default());
    let backend = upstream().await;
    let vms = Arc::new(Mutex::new(vec![vm("web", "web.example", VmState::Ready, backend)]));
    let provisioner = provisioner(&bus, &vms).await;
    let first = Proxy::on(&transport).await;
    eventually("the upstream responds", async || status(first.address, "web.example").await == 200).await;
    let row = bus.table::<proxy::actors::KnownVms>(contract::bucket::ROUTES);
    eventually("the VMs are stored", async || row.get("vms").await.expect("readable").is_some()).await;

    first.end().await;
    provisioner.close().await;
    let second = Proxy::on(&transport).await;
    eventually("the upstream responds", async || status(second.address, "web.example").await == 200).await;
}

#[actix::test]
async fn a_domain_that_two_vms_claim_stays_with_the_first() {
    let transport = MemoryTransport::new();
    let bus = Bus::new(Arc::new(transport.clone()), Realm::default());
    let (backend, other) = (upstream().await, upstream().await);
    let first = vm("web", "web.example", VmState::Ready, backend);
    let mut second = vm("also", "web.example", VmState::Ready, other);
    second.created += Duration::from_secs(60);
    let vms = Arc::new(Mutex::new(vec![second, first]));
    let _provisioner = provisioner(&bus, &vms).await;
    let _proxy = Proxy::on(&transport).await;
    let target = async || {
        let routes = bus.call(&ListRoutes {}, TIMEOUT).await.expect("replied").routes;
        routes.into_iter().next().map(|row| (row.vm.to_string(), row.target))
    };
    let expected = ("web".to_string(), RouteTarget::Address(backend.to_string()));
    eventually("the domain is routed", async || target().await.is_some()).await;
    assert_eq!(target().await, Some(expected));

    let gone = changed("web", None);
    vms.lock().expect("no panic").pop();
    bus.publish(&gone).await.expect("published");
    let expected = ("also".to_string(), RouteTarget::Address(other.to_string()));
    eventually("the second gets it when the first is removed", async || {
        target().await == Some(expected.clone())
    })
    .await;
}

#[actix::test]
async fn a_change_without_an_event_is_found_at_the_next_refresh() {
    let transport = MemoryTransport::new();
    let bus = Bus::new(Arc::new(transport.clone()), Realm::default());
    let backend = upstream().await;
    let vms = Arc::new(Mutex::new(Vec::new()));
    let _provisioner = provisioner(&bus, &vms).await;
    let proxy = Proxy::on(&transport).await;
    *vms.lock().expect("no panic") = vec![vm("web", "web.example", VmState::Ready, backend)];
    eventually("the upstream responds", async || status(proxy.address, "web.example").await == 200).await;
}

#[actix::test]
async fn a_provisioner_that_does_not_reply_is_starting_and_after_a_while_a_health_problem_until_it_does() {
    let transport = MemoryTransport::new();
    let bus = Bus::new(Arc::new(transport.clone()), Realm::default());
    let proxy = Proxy::on(&transport).await;
    let (part, check) = &proxy.running.health_checks[0];
    assert_eq!(*part, "refresh_routes");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(check().await.as_deref(), Some("its first round has not ended yet"), "both may be starting");
    eventually("health names the service that does not reply", async || {
        check().await.is_some_and(|problem| problem.contains("provisioner"))
    })
    .await;
    let _provisioner = provisioner(&bus, &Arc::default()).await;
    eventually("it is healthy", async || check().await.is_none()).await;
}

#[actix::test]
async fn a_running_request_gets_its_response_before_the_proxy_ends() {
    let transport = MemoryTransport::new();
    let bus = Bus::new(Arc::new(transport.clone()), Realm::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let backend = listener.local_addr().expect("bound");
    let vms = Arc::new(Mutex::new(vec![vm("web", "web.example", VmState::Ready, backend)]));
    let _provisioner = provisioner(&bus, &vms).await;
    let Proxy { address: proxy, server: _server, running } = Proxy::on(&transport).await;
    eventually("the domain is routed", async || {
        let routes = bus.call(&ListRoutes {}, TIMEOUT).await.expect("replied").routes;
        routes.iter().any(|row| matches!(row.target, RouteTarget::Address(_)))
    })
    .await;
    let response = tokio::spawn(async move { fetch(proxy, "web.example").await });
    let (mut upstream, _) = listener.accept().await.expect("the request comes");
    let mut head = [0; 1024];
    assert!(upstream.read(&mut head).await.expect("a request") > 0);

    let ending = tokio::spawn(running.shut_down());
    eventually("nothing new is accepted", async || TcpStream::connect(proxy).await.is_err()).await;
    let late = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate";
    upstream.write_all(late).await.expect("replied");
    assert!(response.await.expect("no panic").ends_with("late"));
    ending.await.expect("it ends");
}

#[test]
fn a_row_of_version_1_is_read_and_written() {
    let backend = "127.0.0.1:80".parse().expect("an address");
    let known = |state| {
        let mut vm: proxy_domain::UpstreamVm = vm("web", "web.example", state, backend).into();
        vm.created = contract::Timestamp::UNIX_EPOCH;
        proxy::actors::KnownVms(vec![vm])
    };
    let row = bus::write_row(&known(VmState::Ready)).expect("written");
    testkit::golden_row(env!("CARGO_MANIFEST_DIR"), "routes", &row);
    assert_eq!(bus::read_row(&row), Ok(known(VmState::Ready)));
}
