//! The provisioner as a process, on a real NATS server; and its sudden death at many moments.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bus::Bus;
use contract::health::CheckHealth;
use contract::operation::OperationState;
use contract::provisioner::{AddSeed, CreateVm, GetVm, ListVms, RemoveVm, VmState};
use contract::{OperationId, Realm, Service};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use operation::{new_id, wait_for_operation};
use testkit::{NatsServer, eventually};

use crate::support::{ANSWER, WAIT_MAX, definition, raw_image, script, seed_name, vm, write_rows_key};

/// From SIGTERM to the end, where the bus does not answer; with room for a machine that stands still itself.
const TERMINATE_MAX: Duration = Duration::from_secs(20);

/// The process; it ends with this value, without warning.
struct Provisioner(Child);

impl Drop for Provisioner {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is waited for.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(config: &Path) -> Provisioner {
    let child = Command::new(env!("CARGO_BIN_EXE_loam-provisioner"))
        .env("LOAM_CONFIG", config)
        .stdin(Stdio::null())
        .spawn()
        .expect("our own binary");
    Provisioner(child)
}

async fn client(server: &NatsServer) -> Bus {
    let connection = bus::nats::Connection {
        url: server.url(),
        nkey_file: None,
        ca_file: None,
        name: "test".into(),
        user: contract::permissions::User::Service(Service::Upgrade),
    };
    let transport = bus::nats::connect(&connection, WAIT_MAX).await.expect("connected");
    bus::nats::bootstrap(&transport, Service::Provisioner, 1).await.expect("buckets");
    Bus::new(Arc::new(transport), Realm::default())
}

async fn answers(bus: &Bus) {
    eventually("the provisioner answers", async || {
        bus.call(&ListVms {}, Duration::from_secs(1)).await.is_ok()
    })
    .await;
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), signal).expect("it runs");
}

/// Sends SIGTERM and waits for the end.
async fn terminate(process: &mut Provisioner) {
    send(process.0.id(), Signal::SIGTERM);
    let started = Instant::now();
    while process.0.try_wait().expect("our child").is_none() {
        assert!(started.elapsed() < TERMINATE_MAX, "it still runs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[actix::test]
async fn sigterm_ends_it_at_every_moment_of_a_start_whose_bus_stands_still_and_sighup_never() {
    let server = NatsServer::start();
    let folder = tempfile::tempdir().expect("a folder");
    let config = setting(folder.path(), &server);
    let bus = client(&server).await;
    let mut process = start(&config);
    answers(&bus).await;
    send(process.0.id(), Signal::SIGHUP);
    answers(&bus).await;
    terminate(&mut process).await;
    // Milliseconds from the start of the process to the moment at which the server stops answering.
    for delay in [0, 20, 50, 100, 200] {
        let mut process = start(&config);
        tokio::time::sleep(Duration::from_millis(delay)).await;
        send(server.pid(), Signal::SIGSTOP);
        tokio::time::sleep(Duration::from_millis(500)).await;
        terminate(&mut process).await;
        send(server.pid(), Signal::SIGCONT);
    }
    let _process = start(&config);
    answers(&bus).await;
}

async fn ended(bus: &Bus, id: &OperationId) -> OperationState {
    let report = wait_for_operation(bus, Service::Provisioner, id, WAIT_MAX, |_| {}).await;
    report.expect("an outcome").state
}

fn setting(folder: &Path, server: &NatsServer) -> std::path::PathBuf {
    let path = folder.join("loam.toml");
    let text = format!(
        "host = \"h1\"\nstate_dir = {:?}\n[nats]\nurl = {:?}\n[provisioner]\nhypervisor = \"simulated\"\n",
        folder.join("state"),
        server.url()
    );
    std::fs::write(&path, text).expect("written");
    write_rows_key(&folder.join("state"));
    path
}

#[actix::test]
async fn whenever_it_is_killed_a_creation_ends_done_and_nothing_else_remains() {
    let server = NatsServer::start();
    let folder = tempfile::tempdir().expect("a folder");
    let config = setting(folder.path(), &server);
    let bus = client(&server).await;
    let mut process = start(&config);
    answers(&bus).await;

    eventually("it is healthy", async || {
        let health = bus.call_at(Service::Provisioner, &CheckHealth {}, ANSWER).await;
        health.expect("an answer").is_healthy()
    })
    .await;

    let (path, sha256) = raw_image(folder.path());
    let seed = AddSeed {
        name: seed_name(),
        from: path.display().to_string(),
        sha256,
        host: None,
        operation_id: None,
    };
    let begun = bus.call(&seed, ANSWER).await.expect("begun");
    assert_eq!(ended(&bus, begun.operation()).await, OperationState::Done);

    // Milliseconds from the command to the kill: from before the first step to after the last.
    for (round, delay) in [0, 5, 20, 40, 80, 160, 320].into_iter().enumerate() {
        let name = format!("web{round}");
        let mut definition = definition(&name);
        definition.install = vec![script("install.sh", "#!/bin/sh\n")];
        let id = new_id();
        let create = CreateVm { definition, host: None, overcommit: false, operation_id: Some(id.clone()) };
        bus.call(&create, ANSWER).await.expect("begun");
        tokio::time::sleep(Duration::from_millis(delay)).await;
        drop(process);
        process = start(&config);
        answers(&bus).await;
        assert_eq!(ended(&bus, &id).await, OperationState::Done, "killed after {delay} ms");
        let made = bus.call(&GetVm { vm: vm(&name) }, ANSWER).await.expect("it exists");
        assert_eq!((made.state, made.locked_by), (VmState::Ready, None));

        let id = new_id();
        let remove = RemoveVm { vm: vm(&name), operation_id: Some(id.clone()) };
        bus.call(&remove, ANSWER).await.expect("begun");
        drop(process);
        process = start(&config);
        answers(&bus).await;
        assert_eq!(ended(&bus, &id).await, OperationState::Done);
    }
    assert_eq!(bus.call(&ListVms {}, ANSWER).await.expect("a list"), []);
    for kind in ["vms", "aside", "simulated"] {
        let folder = folder.path().join("state").join(kind);
        eventually(&format!("{} is empty", folder.display()), async || {
            std::fs::read_dir(&folder).expect("a folder").count() == 0
        })
        .await;
    }
}
