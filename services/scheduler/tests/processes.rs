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

/// A scheduler process; killed with this value.
struct Process(Child);

impl Process {
    fn start(server: &NatsServer) -> Process {
        let child = Command::new(env!("CARGO_BIN_EXE_loam-scheduler"))
            .env("LOAM__NATS__URL", server.url())
            .env_remove("LOAM_CONFIG")
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
