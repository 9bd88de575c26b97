//! The upgrade service as a process, against a real NATS server.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bus::Bus;
use contract::permissions::User;
use contract::upgrade::ListServices;
use contract::{Realm, Service};
use testkit::{NatsServer, eventually};

const SOON: Duration = Duration::from_secs(20);

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(server: &NatsServer, host: &str) -> Process {
    let child = Command::new(env!("CARGO_BIN_EXE_loam-upgrade"))
        .env("LOAM__NATS__URL", server.url())
        .env("LOAM__HOST", host)
        .env_remove("LOAM_CONFIG")
        .stdin(Stdio::null())
        .spawn();
    Process(child.expect("it was built for this test"))
}

#[tokio::test]
async fn every_process_is_found_on_its_host_and_checked_there() {
    let server = NatsServer::start();
    let connection = bus::nats::Connection {
        url: server.url(),
        nkey_file: None,
        name: "test".into(),
        user: User::Service(Service::Upgrade),
    };
    let transport = bus::nats::connect(&connection, SOON).await.expect("a server answers");
    bus::nats::bootstrap(&transport, Service::Upgrade, 1).await.expect("buckets can be made");
    let bus = Bus::new(Arc::new(transport), Realm::default());
    let _processes = [start(&server, "h1"), start(&server, "h2")];

    let mut found = Vec::new();
    eventually("both are found and healthy", async || {
        found = bus.call(&ListServices {}, SOON).await.unwrap_or_default();
        found.len() == 2 && found.iter().all(|running| running.health.is_healthy())
    })
    .await;
    let hosts: Vec<&str> = found.iter().map(|running| running.host.as_str()).collect();
    assert_eq!(hosts, ["h1", "h2"]);
    let [one, other] = [&found[0].health, &found[1].health];
    assert_ne!(one.instance, other.instance, "each host's instance answers for itself");
    assert_eq!(one.build, other.build);
    assert_eq!(one.service, Service::Upgrade);
}
