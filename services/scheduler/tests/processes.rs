//! The scheduler as a process, against a real NATS server: killed, started again, and two at a time.

#[path = "support/mod.rs"]
#[allow(dead_code, reason = "the clock set by hand is for tests inside one process")]
mod support;

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use contract::permissions::User;
use contract::scheduler::{AddSchedule, ListRuns, RemoveSchedule, RunStartStatus};
use contract::{Request, ScheduleId, Service};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::Installation;
use testkit::{NatsServer, eventually};

/// How long the first contact with the server may take.
const SOON: Duration = Duration::from_secs(20);

/// The socket at which systemd listens.
struct Manager {
    _folder: tempfile::TempDir,
    socket: std::os::unix::net::UnixDatagram,
    path: std::path::PathBuf,
}

impl Manager {
    fn open() -> Manager {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("bound");
        Manager { _folder: folder, socket, path }
    }

    /// The lines that arrive until one of them is this; none where nothing arrives for a while.
    fn receives(&self, line: &str, for_max: Duration) -> Option<Vec<String>> {
        self.socket.set_read_timeout(Some(for_max)).expect("set");
        let (mut received, mut bytes) = (Vec::new(), [0; 4096]);
        while !received.iter().any(|received| received == line) {
            let count = self.socket.recv(&mut bytes).ok()?;
            let text = String::from_utf8(bytes[..count].to_vec()).expect("text");
            received.extend(text.lines().map(str::to_string));
        }
        Some(received)
    }
}

/// A scheduler process; killed with this value.
struct Process(Child);

impl Process {
    fn start(server: &NatsServer) -> Process {
        Process::start_with(server, &[])
    }

    fn start_with(server: &NatsServer, variables: &[(&str, &str)]) -> Process {
        let child = Command::new(env!("CARGO_BIN_EXE_loam-scheduler"))
            .env("LOAM__NATS__URL", server.url())
            .env_remove("LOAM_CONFIG")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .spawn();
        Process(child.expect("it was built for this test"))
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).expect("it runs");
    }

    /// SIGKILL.
    fn kill(mut self) {
        end(&mut self.0);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        end(&mut self.0);
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself; then there is nothing to kill.
    drop(child.kill());
    drop(child.wait());
}

async fn installation(server: &NatsServer) -> Installation {
    let connection = bus::nats::Connection {
        url: server.url(),
        nkey_file: None,
        ca_file: None,
        name: "test".into(),
        user: User::Service(Service::Backup),
    };
    let transport = bus::nats::connect(&connection, SOON).await.expect("a server answers");
    bus::nats::bootstrap(&transport, Service::Scheduler, 1).await.expect("buckets can be made");
    Installation::on(Arc::new(transport), "2026-05-01T12:00:00Z")
}

/// Sends a request until it is answered: processes take a moment to start.
async fn answered<R: Request>(installation: &Installation, request: &R) -> R::Reply {
    let mut reply = None;
    eventually(R::NAME, async || {
        reply = installation.call(request).await.ok();
        reply.is_some()
    })
    .await;
    reply.expect("it was answered")
}

fn add(id: &str, cron: &str) -> AddSchedule {
    AddSchedule { schedule: support::schedule(id, cron, "web") }
}

#[actix::test]
async fn two_processes_make_each_run_once() {
    let server = NatsServer::start();
    let installation = installation(&server).await;
    let _owners = installation.owners.open(&installation.bus).await;
    let _processes = [Process::start(&server), Process::start(&server)];
    answered(&installation, &add("busy", "* * * * * *")).await;
    eventually("it fires several times", async || installation.owners.received().len() >= 6).await;
    let id = ScheduleId::new("busy").expect("valid");
    answered(&installation, &RemoveSchedule { id }).await;
    let received = installation.owners.received();
    let ids: BTreeSet<_> = received.iter().map(|command| &command.id).collect();
    assert_eq!(ids.len(), received.len(), "no command is sent twice");
}

#[actix::test]
async fn a_stopped_process_gets_no_more_requests_and_makes_no_run_twice() {
    // The server drops a client that answers none of three pings.
    let server = NatsServer::start_with("listen: \"127.0.0.1:-1\"\nping_interval: \"1s\"\nping_max: 2\n");
    let installation = installation(&server).await;
    let _owners = installation.owners.open(&installation.bus).await;
    let (stopped, _other) = (Process::start(&server), Process::start(&server));
    answered(&installation, &add("busy", "* * * * * *")).await;
    eventually("it fires", async || !installation.owners.received().is_empty()).await;
    stopped.signal(Signal::SIGSTOP);
    let id = ScheduleId::new("busy").expect("valid");
    eventually("every request is answered again", async || {
        for _ in 0..20 {
            if installation.call(&ListRuns { id: id.clone() }).await.is_err() {
                return false;
            }
        }
        true
    })
    .await;
    let before = installation.owners.received().len();
    eventually("the other one fires", async || installation.owners.received().len() >= before + 3).await;
    stopped.signal(Signal::SIGCONT);
    let before = installation.owners.received().len();
    eventually("both go on", async || installation.owners.received().len() >= before + 4).await;
    answered(&installation, &RemoveSchedule { id }).await;
    // A command that was being sent when its process was stopped is sent again with the same id.
    let received = installation.owners.received();
    let ids: BTreeSet<_> = received.iter().map(|command| &command.id).collect();
    assert!(received.len() - ids.len() <= 1, "{received:?}");
}

#[actix::test]
async fn a_process_killed_while_it_sends_sends_again_after_its_start() {
    let server = NatsServer::start();
    let installation = installation(&server).await;
    let process = Process::start(&server);
    answered(&installation, &add("busy", "*/2 * * * * *")).await;
    let list = ListRuns { id: ScheduleId::new("busy").expect("valid") };
    let mut outcome = None;
    eventually("it sends, and nobody answers", async || {
        outcome = answered(&installation, &list).await.pop().map(|run| run.outcome);
        outcome.is_some()
    })
    .await;
    process.kill();
    let Some(RunStartStatus::Sending(id)) = outcome else {
        panic!("nobody answered it: {outcome:?}");
    };

    let _owners = installation.owners.open(&installation.bus).await;
    let _process = Process::start(&server);
    eventually("it is sent again and recorded", async || {
        let runs = answered(&installation, &list).await;
        runs.iter().any(|run| run.outcome == RunStartStatus::Started(id.clone()))
    })
    .await;
    let received = installation.owners.received();
    assert!(received.iter().any(|command| command.id == id));
}

#[actix::test]
async fn systemd_is_sent_that_it_is_ready_that_it_answers_and_that_it_ends() {
    let server = NatsServer::start();
    let (manager, _installation) = (Manager::open(), installation(&server).await);
    let path = manager.path.display().to_string();
    // Half a second: checked three times in it.
    let process = Process::start_with(&server, &[("NOTIFY_SOCKET", &path), ("WATCHDOG_USEC", "500000")]);
    let received = manager.receives("READY=1", SOON).expect("it is ready");
    assert!(received.contains(&"WATCHDOG=1".to_string()), "{received:?}");
    for _ in 0..5 {
        manager.receives("WATCHDOG=1", SOON).expect("it answers");
    }
    process.signal(Signal::SIGSTOP);
    // What was sent before may arrive still.
    while manager.receives("WATCHDOG=1", Duration::from_secs(2)).is_some() {}
    process.signal(Signal::SIGCONT);
    manager.receives("WATCHDOG=1", SOON).expect("it answers again");
    process.signal(Signal::SIGTERM);
    manager.receives("STOPPING=1", SOON).expect("it ends");
}
