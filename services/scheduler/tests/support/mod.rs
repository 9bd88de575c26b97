//! A clock set by hand, services that record the commands they receive, and schedulers that can be killed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::Arbiter;
use async_trait::async_trait;
use bus::memory::MemoryTransport;
use bus::{
    Bus, CallError, Caller, ErrorReply, IncomingRequest, RunningServer, Server, ServiceInfo, Transport,
};
use chrono::TimeDelta;
use contract::backup::{StartBackup, VerifyRepository};
use contract::operation::BegunOperation;
use contract::provisioner::StopVm;
use contract::scheduler::{
    AddSchedule, ListRuns, RunStartStatus, Schedule, ScheduleStatus, ScheduledCommand, ScheduledRun,
};
use contract::{DurableCommand, OperationId, Realm, Request, ScheduleId, Service, Timestamp};
use scheduler::ports::Clock;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

pub(crate) const CALL_MAX: Duration = Duration::from_secs(10);

/// Time that stands still until it is moved: a steady clock, and a wall clock beside it.
pub(crate) struct ManualClock {
    steady: watch::Sender<Duration>,
    wall_at_zero: Mutex<Timestamp>,
}

impl ManualClock {
    pub(crate) fn at(text: &str) -> Arc<ManualClock> {
        let wall_at_zero = Mutex::new(at(text));
        let steady = watch::Sender::new(Duration::ZERO);
        Arc::new(ManualClock { steady, wall_at_zero })
    }

    /// Time goes by.
    pub(crate) fn advance(&self, seconds: u64) {
        self.steady.send_modify(|steady| *steady += Duration::from_secs(seconds));
    }

    /// The wall clock is set; no time goes by.
    pub(crate) fn set(&self, text: &str) {
        let steady = TimeDelta::from_std(*self.steady.borrow()).expect("small");
        *self.wall_at_zero.lock().expect("no panic") = at(text) - steady;
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        let steady = TimeDelta::from_std(*self.steady.borrow()).expect("small");
        *self.wall_at_zero.lock().expect("no panic") + steady
    }

    async fn pass(&self, duration: Duration) {
        let until = *self.steady.borrow() + duration;
        let mut steady = self.steady.subscribe();
        steady.wait_for(|steady| *steady >= until).await.expect("the clock outlives its users");
    }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().expect("RFC 3339")
}

/// A command as a service received it.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) command: &'static str,
    pub(crate) body: Value,
    pub(crate) id: OperationId,
    pub(crate) caller: Caller,
    pub(crate) trace: Option<String>,
}

/// The services that own the scheduled commands: they record what they receive, and refuse what is about `nobody`.
#[derive(Clone, Default)]
pub(crate) struct Owners {
    received: Arc<Mutex<Vec<Received>>>,
}

impl Owners {
    /// Opens the services; they close with the value returned.
    pub(crate) async fn open(&self, bus: &Bus) -> [RunningServer; 2] {
        let mut backup = bus.server(info(Service::Backup));
        self.answer::<StartBackup>(&mut backup);
        self.answer::<VerifyRepository>(&mut backup);
        let mut provisioner = bus.server(info(Service::Provisioner));
        self.answer::<StopVm>(&mut provisioner);
        [backup.open().await.expect("the server opens"), provisioner.open().await.expect("the server opens")]
    }

    fn answer<C: DurableCommand>(&self, server: &mut Server) {
        let this = self.clone();
        server.on::<C, _, _>(move |call| {
            let this = this.clone();
            async move { this.receive(call) }
        });
    }

    fn receive<C: DurableCommand>(
        &self,
        call: IncomingRequest<C>,
    ) -> Result<BegunOperation, ErrorReply<C::Refusal>> {
        let id = call.request.operation_id().cloned().expect("the scheduler sets it");
        let received = Received {
            command: C::NAME,
            body: serde_json::to_value(&call.request).expect("plain data"),
            id: id.clone(),
            caller: call.asked_by().clone(),
            trace: telemetry::trace_id(&tracing::Span::current()),
        };
        let mut all = self.received.lock().expect("no panic");
        let known = all.iter().any(|before| before.id == id);
        all.push(received);
        if call.request.about() == "nobody" {
            return Err(ErrorReply::Refused(C::id_reused(id)));
        }
        Ok(if known { BegunOperation::AlreadyBegun(id) } else { BegunOperation::Begun(id) })
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().expect("no panic").clone()
    }
}

fn info(service: Service) -> ServiceInfo {
    ServiceInfo { service, version: "0.1.0".into(), metadata: Default::default() }
}

/// A bus with its tables, a clock and the services that own the scheduled commands.
pub(crate) struct Installation {
    pub(crate) bus: Bus,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) owners: Owners,
}

impl Installation {
    pub(crate) fn at(time: &str) -> Installation {
        Installation::on(Arc::new(MemoryTransport::new()), time)
    }

    /// On a given transport.
    pub(crate) fn on(transport: Arc<dyn Transport>, time: &str) -> Installation {
        Installation {
            bus: Bus::new(transport, Realm::default()),
            clock: ManualClock::at(time),
            owners: Owners::default(),
        }
    }

    /// Starts a scheduler on a thread of its own.
    pub(crate) async fn scheduler(&self) -> Scheduler {
        let arbiter = Arbiter::new();
        let (ready, opened) = oneshot::channel();
        let (bus, clock) = (self.bus.clone(), Arc::clone(&self.clock));
        arbiter.spawn(async move {
            let service = scheduler::open(bus.clone(), clock);
            let mut server = bus.server(info(Service::Scheduler));
            let _running = service.serve(&mut server);
            let _server = server.open().await.expect("the server opens");
            ready.send(()).expect("the test waits");
            std::future::pending::<()>().await;
        });
        opened.await.expect("it starts");
        Scheduler { arbiter }
    }

    pub(crate) async fn call<R: Request>(&self, request: &R) -> Result<R::Reply, CallError<R::Refusal>> {
        self.bus.call(request, CALL_MAX).await
    }

    pub(crate) async fn add(&self, id: &str, cron: &str, vm: &str) -> ScheduleStatus {
        self.call(&AddSchedule { schedule: schedule(id, cron, vm) }).await.expect("added")
    }

    pub(crate) async fn runs(&self, id: &str) -> Vec<ScheduledRun> {
        self.call(&ListRuns { id: ScheduleId::new(id).expect("valid") }).await.expect("listed")
    }

    /// Waits until a schedule has so many runs, each with its outcome.
    pub(crate) async fn finished(&self, id: &str, count: usize) -> Vec<ScheduledRun> {
        let mut runs = Vec::new();
        testkit::eventually(&format!("{count} finished runs of {id}"), async || {
            runs = self.runs(id).await;
            runs.len() == count && !runs.iter().any(|run| matches!(run.outcome, RunStartStatus::Sending(_)))
        })
        .await;
        runs
    }
}

/// A running scheduler.
pub(crate) struct Scheduler {
    arbiter: Arbiter,
}

impl Scheduler {
    /// Ends it at whatever it does, as SIGKILL would.
    pub(crate) fn kill(self) {
        self.arbiter.stop();
        self.arbiter.join().expect("its thread ends");
    }
}

pub(crate) fn schedule(id: &str, cron: &str, vm: &str) -> Schedule {
    Schedule {
        id: ScheduleId::new(id).expect("valid"),
        cron: cron.into(),
        time_zone: "UTC".into(),
        command: command(Service::Backup, "start_backup", json!({ "vm": vm })),
    }
}

pub(crate) fn command(service: Service, command: &str, body: Value) -> ScheduledCommand {
    ScheduledCommand { service, command: command.into(), body }
}
