//! The upgrade service as a process, against a real NATS server.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::Bus;
use contract::permissions::User;
use contract::upgrade::ListServices;
use contract::{Realm, Service};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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

fn command(server: &NatsServer, host: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loam-upgrade"));
    command.env("LOAM__NATS__URL", server.url()).env("LOAM__HOST", host);
    command.env_remove("LOAM_CONFIG").stdin(Stdio::null());
    command
}

fn start(server: &NatsServer, host: &str) -> Process {
    Process(command(server, host).spawn().expect("it was built for this test"))
}

/// Makes the buckets, and gives a connection.
async fn make_buckets(server: &NatsServer) -> Bus {
    let connection = bus::nats::Connection {
        url: server.url(),
        nkey_file: None,
        ca_file: None,
        name: "test".into(),
        user: User::Service(Service::Upgrade),
    };
    let transport = bus::nats::connect(&connection, SOON).await.expect("a server answers");
    bus::nats::bootstrap(&transport, Service::Upgrade, 1).await.expect("buckets can be made");
    Bus::new(Arc::new(transport), Realm::default())
}

/// Whether `--check-health` finds nothing wrong, and what it says otherwise; it is as quick as a container's check must be.
fn check_health(server: &NatsServer, socket: &Path) -> Result<(), String> {
    let begun = Instant::now();
    let output = command(server, "h1").env("LOAM__HEALTH_SOCKET", socket).arg("--check-health").output();
    let output = output.expect("it was built for this test");
    assert!(begun.elapsed() < Duration::from_secs(10), "a check of 2.5 s took {:?}", begun.elapsed());
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into()) }
}

#[tokio::test]
async fn the_health_of_a_process_can_be_checked_on_its_own_host() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("health.sock");
    // An earlier process was killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("bound"));
    let mut server = NatsServer::start();
    make_buckets(&server).await;
    let unanswered = check_health(&server, &socket).expect_err("nobody answers");
    assert!(unanswered.contains("connecting to"), "{unanswered}");
    let process =
        Process(command(&server, "h1").env("LOAM__HEALTH_SOCKET", &socket).spawn().expect("started"));
    eventually("it is healthy", async || check_health(&server, &socket).is_ok()).await;
    let mode = std::fs::metadata(&socket).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "only its user may ask");

    let pid = Pid::from_raw(process.0.id() as i32);
    kill(pid, Signal::SIGSTOP).expect("stopped");
    let hanging = check_health(&server, &socket).expect_err("it hangs");
    assert!(hanging.contains("no answer within"), "{hanging}");
    kill(pid, Signal::SIGCONT).expect("continued");
    eventually("it is healthy again", async || check_health(&server, &socket).is_ok()).await;
    let elsewhere = check_health(&server, &folder.path().join("other.sock"));
    assert!(elsewhere.is_err(), "another socket is another service's");

    server.kill();
    eventually("it says that the bus is gone", async || {
        check_health(&server, &socket).is_err_and(|problem| problem.contains("bus: there is no connection"))
    })
    .await;
}

#[tokio::test]
async fn every_process_is_found_on_its_host_and_checked_there() {
    let server = NatsServer::start();
    let bus = make_buckets(&server).await;
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
