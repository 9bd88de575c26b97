//! A NATS server, a state directory, and services that know two VMs or more and three operations.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bus::{ErrorReply, RunningServer, Server};
use contract::backup::{Backup, ListBackups, StartBackup};
use contract::health::{CheckHealth, Health};
use contract::message::Caller;
use contract::operation::{
    BegunOperation, CancelOperation, GetOperation, ListOperations, OperationReport, OperationState,
    UnknownOperation,
};
use contract::permissions::User;
use contract::provisioner::{
    Consistency, CreateVm, DomainRoute, GetVm, ListSeeds, ListVms, RemoveSeed, Seed, Vm, VmDefinition,
    VmRefused, VmState,
};
use contract::proxy::{ListRoutes, RouteRow, RouteTarget, Routes};
use contract::scheduler::{
    AddSchedule, ListRuns, ListSchedules, RemoveSchedule, RunStartStatus, Schedule, ScheduleStatus,
    ScheduledCommand, ScheduledRun,
};
use contract::upgrade::{ListServices, RunningService};
use contract::{
    BackupId, ByteCount, DomainName, HostName, OperationId, ScheduleId, SeedName, Service, VmName,
};
use loam::state::keys::{self, OPERATOR};

use crate::test_bus::{TestBus, info};

/// The first two share 25 characters.
pub(crate) const CREATED: &str = "01KB5W0000000000000000000A";
pub(crate) const UNDONE: &str = "01KB5W0000000000000000000B";
pub(crate) const BACKED_UP: &str = "01KB5X0000000000000000000C";
/// A backup that waits for a VM at work, the first few times that somebody asks.
pub(crate) const WAITING: &str = "01KB5Y0000000000000000000D";
pub(crate) const WAITING_FOR: &str = "web is locked by create_vm";

pub(crate) struct Installation {
    bus: TestBus,
    _serving: Vec<RunningServer>,
}

impl Installation {
    pub(crate) async fn with_vms(count: usize) -> Installation {
        let bus = TestBus::start().await;
        let state = &bus.state;
        let client = format!(
            "url = \"{}\"\nkey = \"{}\"\nperson = \"{OPERATOR}\"\nrealm = \"loam\"\n",
            bus.server.url(),
            keys::file_of(&state.keys(), &User::Person(OPERATOR.into())).display()
        );
        std::fs::write(state.client(), client).expect("written");
        let mut serving = Vec::new();
        for service in Service::ALL {
            let mut server = bus.service(service).await.server(info(service));
            answer(&mut server, service, count);
            serving.push(server.open().await.expect("opened"));
        }
        Installation { bus, _serving: serving }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.bus.state.root().join(name)
    }

    /// `loam` with these words, on this installation.
    pub(crate) fn loam(&self, words: &[&str]) -> Command {
        let mut loam = Command::new(env!("CARGO_BIN_EXE_loam"));
        loam.env("LOAM_STATE", self.bus.state.root()).env_remove("COLUMNS");
        loam.args(words).stdin(Stdio::null()).current_dir(self.bus.state.root());
        loam
    }

    pub(crate) fn run(&self, words: &[&str]) -> Output {
        self.loam(words).output().expect("it runs")
    }

    /// Standard output of a command that ends well.
    pub(crate) fn text(&self, words: &[&str]) -> String {
        let output = self.run(words);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{words:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// A definition that a person could have written.
    pub(crate) fn write_definition(&self) -> String {
        let path = self.path("web.toml");
        let text =
            "name = \"vm-0\"\nseed = \"debian\"\ncpu_count = 1\nram_size = \"512M\"\ndisk_size = \"4G\"\n";
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    }
}

fn answer(server: &mut Server, service: Service, count: usize) {
    server.on::<CheckHealth, _, _>(move |_| async move { Ok(health(service)) });
    server.on::<ListOperations, _, _>(move |asked| async move {
        let prefix = asked.request.id_prefix.unwrap_or_default();
        let is_meant =
            |report: &OperationReport| report.service == service && report.id.as_str().starts_with(&prefix);
        Ok(operations().into_iter().filter(is_meant).collect())
    });
    let waits = Arc::new(AtomicUsize::new(3));
    server.on::<GetOperation, _, _>(move |asked| {
        let waits = Arc::clone(&waits);
        async move {
            if asked.request.id.as_str() != WAITING {
                return operation(service, asked.request.id);
            }
            let done = OperationReport { id: id(WAITING), ..operation(service, id(BACKED_UP))? };
            if waits.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err() {
                return Ok(done);
            }
            let (state, step) = (OperationState::Running, Some("open_disks".into()));
            Ok(OperationReport { state, step, waiting_for: Some(WAITING_FOR.into()), output: None, ..done })
        }
    });
    server.on::<CancelOperation, _, _>(move |asked| async move { operation(service, asked.request.id) });
    match service {
        Service::Provisioner => {
            server.on::<ListVms, _, _>(move |_| async move { Ok((0..count).map(vm).collect()) });
            server.on::<GetVm, _, _>(move |asked| async move {
                let found = (0..count).map(vm).find(|vm| vm.definition.name == asked.request.vm);
                found.ok_or(ErrorReply::Refused(VmRefused::UnknownVm(asked.request.vm)))
            });
            server.on::<CreateVm, _, _>(|_| async { Ok(BegunOperation::Begun(id(CREATED))) });
            server.on::<ListSeeds, _, _>(|_| async { Ok(vec![seed()]) });
            server.on::<RemoveSeed, _, _>(|_| async { Ok(seed()) });
        }
        Service::Backup => {
            server.on::<StartBackup, _, _>(|asked| async move {
                let begun = if asked.request.vm.as_str() == "vm-at-work" { WAITING } else { BACKED_UP };
                Ok(BegunOperation::Begun(id(begun)))
            });
            server.on::<ListBackups, _, _>(|_| async { Ok(vec![backup()]) });
        }
        Service::Proxy => {
            server.on::<ListRoutes, _, _>(|_| async { Ok(routes()) });
        }
        Service::Scheduler => {
            server.on::<AddSchedule, _, _>(|asked| async { Ok(status(asked.request.schedule)) });
            server.on::<RemoveSchedule, _, _>(|_| async { Ok(schedule()) });
            server.on::<ListSchedules, _, _>(|_| async { Ok(vec![status(schedule())]) });
            server.on::<ListRuns, _, _>(|_| async { Ok(vec![run()]) });
        }
        Service::Upgrade => {
            server.on::<ListServices, _, _>(|_| async {
                let found = |service| RunningService { health: health(service), host: "localhost".into() };
                Ok(Service::ALL.into_iter().map(found).collect())
            });
        }
        Service::Supervisor | Service::Unknown => {}
    }
}

fn id(text: &str) -> OperationId {
    text.parse().expect("an id")
}

fn now() -> contract::Timestamp {
    chrono::Utc::now()
}

fn health(service: Service) -> Health {
    Health {
        service,
        version: "0.1.0".into(),
        build: "0123456789abcdef".into(),
        instance: "1".into(),
        since: now(),
        parts: Vec::new(),
        notices: Vec::new(),
    }
}

fn operator() -> Caller {
    Caller::Person { user: "UOPERATOR".into(), name: Some("operator".into()) }
}

fn operations() -> Vec<OperationReport> {
    let report = |text: &str, service, kind: &str, state, reason: Option<String>, output| OperationReport {
        id: id(text),
        service,
        host: HostName::new("h1").expect("fits"),
        caller: operator(),
        on_behalf_of: None,
        kind: kind.into(),
        about: "vm-0".into(),
        state,
        step: None,
        steps_done: 3,
        steps_total: 3,
        progress: None,
        waiting_for: None,
        reason,
        output,
        started: now() - chrono::TimeDelta::seconds(6),
        updated: now(),
        trace_id: None,
    };
    let long =
        "the hypervisor did not answer within 30 s, and what it was asked for could not be undone ".repeat(4);
    let sealed = serde_json::to_value(backup()).expect("plain data");
    let (provisioner, done) = (Service::Provisioner, OperationState::Done);
    vec![
        report(CREATED, provisioner, "create_vm", done.clone(), None, None),
        report(UNDONE, provisioner, "start_vm", OperationState::Undone, Some(long), None),
        report(BACKED_UP, Service::Backup, "start_backup", done, None, Some(sealed)),
    ]
}

fn operation(service: Service, id: OperationId) -> Result<OperationReport, ErrorReply<UnknownOperation>> {
    let mut all = operations().into_iter();
    let found = all.find(|report| report.service == service && report.id == id);
    found.ok_or(ErrorReply::Refused(UnknownOperation { id }))
}

fn vm(number: usize) -> Vm {
    let domain = |name: &str| DomainRoute {
        domain: DomainName::new(format!("{name}-{number}.apps.example")).expect("fits"),
        port: 80,
    };
    Vm {
        definition: VmDefinition {
            name: VmName::new(format!("vm-{number}")).expect("fits"),
            seed: SeedName::new("debian").expect("fits"),
            cpu_count: 2,
            ram_size: ByteCount::mib(1536),
            disk_size: ByteCount::gib(20),
            domains: ["www", "shop", "intranet"].map(domain).into(),
            env: Default::default(),
            install: Vec::new(),
        },
        uuid: format!("0b7ce0e6-5e5c-4d0e-a2b4-{number:012}").parse().expect("a UUID"),
        mac: "52:54:00:00:00:01".parse().expect("a MAC address"),
        pause_reason: None,
        problem: None,
        host: HostName::new("localhost").expect("fits"),
        state: VmState::Ready,
        address: Some(format!("10.88.{}.{}", number / 250, number % 250 + 2).parse().expect("an address")),
        locked_by: None,
        created: now(),
        hypervisor: "libvirt".into(),
        variables: Vec::new(),
        scripts: Vec::new(),
        emulation_reason: Some("this host has no /dev/kvm".into()),
    }
}

fn seed() -> Seed {
    Seed {
        host: "h1".parse().expect("a name"),
        name: SeedName::new("debian").expect("fits"),
        sha256: "5".repeat(64),
        virtual_size: ByteCount::gib(3),
        stored_size: ByteCount::mib(340),
        added: now(),
    }
}

fn backup() -> Backup {
    Backup {
        id: BackupId::from(&id(BACKED_UP)),
        vm: VmName::new("vm-0").expect("fits"),
        taken: now(),
        consistency: Consistency::Filesystem,
        disks: Vec::new(),
        schedule: Some(ScheduleId::new("every-night-at-half-past-two").expect("fits")),
        bytes_read: ByteCount::gib(4),
        bytes_new: ByteCount::mib(12),
        bytes_stored: ByteCount::mib(5),
        took_ms: 9100,
    }
}

fn routes() -> Routes {
    let row = RouteRow {
        domain: DomainName::new("www-0.apps.example").expect("fits"),
        vm: VmName::new("vm-0").expect("fits"),
        target: RouteTarget::Unavailable(
            "the VM is being started, and nobody listens on its port yet".into(),
        ),
    };
    Routes { http_listener: "0.0.0.0:8080".into(), routes: vec![row] }
}

fn schedule() -> Schedule {
    Schedule {
        id: ScheduleId::new("nightly").expect("fits"),
        cron: "30 2 * * *".into(),
        time_zone: "America/Argentina/ComodRivadavia".into(),
        command: ScheduledCommand {
            service: Service::Backup,
            command: "start_backup".into(),
            body: serde_json::json!({ "vm": "vm-0" }),
        },
    }
}

fn status(schedule: Schedule) -> ScheduleStatus {
    ScheduleStatus { schedule, created_by: operator(), next: Some(now()), last: Some(run()) }
}

fn run() -> ScheduledRun {
    let reason = "the backup service did not answer, and the run was given up after 26 tries".to_string();
    ScheduledRun {
        schedule: schedule().id,
        due: now(),
        fired: now(),
        outcome: RunStartStatus::NotStarted(reason),
    }
}
