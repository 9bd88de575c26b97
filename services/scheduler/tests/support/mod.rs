//! A clock set by hand, a backup desk that writes down what it is asked, and schedulers that can be killed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::Arbiter;
use async_trait::async_trait;
use bus::memory::MemoryTransport;
use bus::{Bus, CallError, Transport, Declined, ServiceInfo, RunningServer};
use chrono::TimeDelta;
use contract::backup::{StartBackup, StartBackupRefused};
use contract::operation::Begun;
use contract::scheduler::{AddSchedule, ListRuns, Run, RunOutcome, Schedule, ScheduleStatus, ScheduledWork};
use contract::{Realm, Request, ScheduleId, Service, Timestamp, VmName};
use scheduler::ports::Clock;
use tokio::sync::{oneshot, watch};

pub(crate) const CALL_MAX: Duration = Duration::from_secs(10);

/// Time that stands still until somebody moves it: a steady clock, and a wall clock beside it.
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

    /// Somebody sets the wall clock; no time goes by.
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
        steady.wait_for(|steady| *steady >= until).await.expect("the clock outlives whoever waits");
    }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().expect("RFC 3339")
}

/// A question as it came, and the trace that it came in.
type Heard = (StartBackup, Option<String>);

/// What the backup service is asked.
#[derive(Clone, Default)]
pub(crate) struct BackupDesk {
    asked: Arc<Mutex<Vec<Heard>>>,
}

impl BackupDesk {
    /// Opens the desk; it closes with the value returned.
    pub(crate) async fn open(&self, bus: &Bus) -> Serving {
        let mut server = bus.server(card(Service::Backup));
        let this = self.clone();
        server.on::<StartBackup, _, _>(move |asked| {
            let this = this.clone();
            async move { this.answer(asked.request) }
        });
        server.open().await.expect("the desk opens")
    }

    fn answer(&self, request: StartBackup) -> Result<Begun, Declined<StartBackupRefused>> {
        let mut asked = self.asked.lock().expect("no panic");
        let known = asked.iter().any(|(before, _)| *before == request);
        asked.push((request.clone(), telemetry::trace_id(&tracing::Span::current())));
        if request.vm.as_str() == "nobody" {
            return Err(Declined::Refused(StartBackupRefused::Unknown(request.vm)));
        }
        let id = request.operation_id.expect("the scheduler names its operation");
        Ok(if known { Begun::AlreadyBegun(id) } else { Begun::Begun(id) })
    }

    pub(crate) fn asked(&self) -> Vec<StartBackup> {
        self.asked.lock().expect("no panic").iter().map(|(request, _)| request.clone()).collect()
    }

    pub(crate) fn traces(&self) -> Vec<Option<String>> {
        self.asked.lock().expect("no panic").iter().map(|(_, trace)| trace.clone()).collect()
    }
}

fn card(service: Service) -> ServiceInfo {
    ServiceInfo { service, version: "0.1.0".into(), metadata: Default::default() }
}

/// A bus with one table space, a clock and a backup desk.
pub(crate) struct World {
    pub(crate) bus: Bus,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) backup: BackupDesk,
}

impl World {
    pub(crate) fn at(time: &str) -> World {
        World::on(Arc::new(MemoryTransport::new()), time)
    }

    /// On a bus of one's own.
    pub(crate) fn on(carrier: Arc<dyn Carrier>, time: &str) -> World {
        World {
            bus: Bus::new(carrier, Realm::default()),
            clock: ManualClock::at(time),
            backup: BackupDesk::default(),
        }
    }

    /// Starts a scheduler on a thread of its own.
    pub(crate) async fn scheduler(&self) -> Scheduler {
        let arbiter = Arbiter::new();
        let (ready, opened) = oneshot::channel();
        let (bus, clock) = (self.bus.clone(), Arc::clone(&self.clock));
        arbiter.spawn(async move {
            let service = scheduler::open(bus.clone(), clock);
            let mut server = bus.server(card(Service::Scheduler));
            let endpoints = service.endpoints.expect("it answers");
            endpoints(&mut server);
            let _serving = server.open().await.expect("the desk opens");
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

    pub(crate) async fn runs(&self, id: &str) -> Vec<Run> {
        self.call(&ListRuns { id: ScheduleId::new(id).expect("valid") }).await.expect("listed")
    }

    /// Waits until a schedule has so many runs, all of them settled.
    pub(crate) async fn settled(&self, id: &str, count: usize) -> Vec<Run> {
        let mut runs = Vec::new();
        testkit::eventually(&format!("{count} settled runs of {id}"), async || {
            runs = self.runs(id).await;
            runs.len() == count && !runs.iter().any(|run| matches!(run.outcome, RunOutcome::Asking(_)))
        })
        .await;
        runs
    }
}

/// A scheduler at work.
pub(crate) struct Scheduler {
    arbiter: Arbiter,
}

impl Scheduler {
    /// Ends it where it stands, as SIGKILL would.
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
        work: ScheduledWork::Backup { vm: VmName::new(vm).expect("valid") },
    }
}
