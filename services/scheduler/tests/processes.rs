//! The scheduler as a process, against a real NATS server: killed, started again, and two at a time.

#[path = "support/mod.rs"]
#[allow(dead_code, reason = "the clock set by hand is for tests inside one process")]
mod support;

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use contract::permissions::inbox_prefix;
use contract::scheduler::{AddSchedule, ListRuns, RemoveSchedule, RunOutcome};
use contract::{Request, ScheduleId, Service};
use support::World;
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

async fn world(server: &NatsServer) -> World {
    let connection = bus::nats::Connection {
        url: server.url(),
        nkey_file: None,
        name: "test".into(),
        inbox_prefix: inbox_prefix(Service::Backup),
    };
    let carrier = bus::nats::connect(&connection, SOON).await.expect("a server answers");
    bus::nats::bootstrap(&carrier, 1).await.expect("buckets can be made");
    World::on(Arc::new(carrier), "2026-05-01T12:00:00Z")
}

/// Asks until somebody answers: processes take a moment to start.
async fn answered<R: Request>(world: &World, request: &R) -> R::Reply {
    let mut reply = None;
    eventually(R::NAME, async || {
        reply = world.call(request).await.ok();
        reply.is_some()
    })
    .await;
    reply.expect("just seen")
}

fn add(id: &str, cron: &str) -> AddSchedule {
    AddSchedule { schedule: support::schedule(id, cron, "web") }
}

#[actix::test]
async fn two_processes_keep_every_appointment_once() {
    let server = NatsServer::start();
    let world = world(&server).await;
    let _desk = world.backup.open(&world.bus).await;
    let _processes = [Process::start(&server), Process::start(&server)];
    answered(&world, &add("busy", "* * * * * *")).await;
    eventually("it is kept several times", async || world.backup.asked().len() >= 6).await;
    let id = ScheduleId::new("busy").expect("valid");
    answered(&world, &RemoveSchedule { id }).await;
    let asked = world.backup.asked();
    let ids: BTreeSet<_> = asked.iter().map(|request| &request.operation_id).collect();
    assert_eq!(ids.len(), asked.len(), "no appointment is asked for twice");
}

#[actix::test]
async fn a_process_killed_while_it_asks_asks_again_after_its_start() {
    let server = NatsServer::start();
    let world = world(&server).await;
    let process = Process::start(&server);
    answered(&world, &add("busy", "*/2 * * * * *")).await;
    let list = ListRuns { id: ScheduleId::new("busy").expect("valid") };
    let mut asking = None;
    eventually("it asks, and nobody answers", async || {
        asking = answered(&world, &list).await.pop().map(|run| run.outcome);
        asking.is_some()
    })
    .await;
    process.kill();
    let Some(RunOutcome::Asking(id)) = asking else {
        panic!("nobody answered it: {asking:?}");
    };

    let _desk = world.backup.open(&world.bus).await;
    let _process = Process::start(&server);
    eventually("it is asked for again and written down", async || {
        let runs = answered(&world, &list).await;
        runs.iter().any(|run| run.outcome == RunOutcome::Begun(id.clone()))
    })
    .await;
    let asked = world.backup.asked();
    assert!(asked.iter().any(|request| request.operation_id.as_ref() == Some(&id)));
}
