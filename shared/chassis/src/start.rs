//! Start, ready, end.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, People, Server, ServiceInfo};
use contract::Realm;
use contract::health::Health;
use contract::message::with_causes;
use operation::Engine;
use serde::de::DeserializeOwned;

use crate::descriptors::{check_descriptors, raise_limit};
use crate::files::sha256_of;
use crate::health::{HealthChecks, PartCheck, check_bus, check_resumed, check_rows};
use crate::local_health::{self, LocalHealth};
use crate::memory::leave_no_core_dump;
use crate::operations::OperationPruner;
use crate::settings::{OperationsKept, Settings, load};
use crate::signals::EndSignals;
use crate::systemd::Notifier;
use crate::tables::TableChecker;
use crate::wiring::Wiring;
use crate::worker::Workers;

/// How long the first contact with the bus may take before we say so and end; our supervisor starts us again.
const BUS_WAIT_MAX: Duration = Duration::from_secs(60);
/// Two are enough: CPU work and blocking calls have threads of their own.
const RUNTIME_THREADS: usize = 2;

/// The argument with which a service reads its settings, says what is wrong with them, and ends: `loam up` asks all of
/// them before it touches anything.
pub const CHECK_SETTINGS: &str = "--check-settings";

/// The argument with which a service asks the one that runs with the same settings for its health, says what is wrong,
/// and ends.
pub const CHECK_HEALTH: &str = "--check-health";

/// Digits of the executable's SHA-256 that name a build.
const BUILD_DIGITS: usize = 16;

/// A boxed future.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a service is given to build itself from.
pub struct ServiceContext<S> {
    /// Its settings.
    pub settings: Settings<S>,
    /// The bus.
    pub bus: Bus,
    /// Its version.
    pub version: &'static str,
    /// Its build: the beginning of the SHA-256 of its executable.
    pub build: String,
    /// This run of it.
    pub instance: String,
}

/// What a service gives back: everything that answers, and what its health depends on.
pub struct Service {
    endpoints: Box<dyn FnOnce(&mut Server) + Send>,
    engine: Option<Engine>,
    workers: Workers,
    parts: Vec<(&'static str, PartCheck)>,
    notices: Vec<String>,
    end: Option<BoxFuture<()>>,
}

impl Service {
    /// A service that answers by a table. Its operations are resumed once the endpoints are open.
    pub fn new<H: Send + Sync + 'static>(wiring: Wiring<H>, handlers: H) -> Service {
        Service {
            engine: wiring.operation_engine.clone(),
            endpoints: Box::new(move |server| wiring.serve(handlers, server)),
            workers: Workers::default(),
            parts: Vec::new(),
            notices: Vec::new(),
            end: None,
        }
    }

    /// Its background workers: part of its health, and stopped at its end.
    pub fn with_workers(mut self, workers: Workers) -> Service {
        self.parts.extend(workers.checks());
        self.workers = workers;
        self
    }

    /// What every service does in the background: whether its tables can be written is a part of its health, and records
    /// of operations that ended long ago are removed.
    fn with_common_workers(mut self, bus: &Bus, service: contract::Service, kept: OperationsKept) -> Service {
        let own = self.workers.checks().len();
        if let Some(checker) = TableChecker::of(bus, service) {
            self.parts.push(checker.check_missing());
            self.workers.start(checker);
        }
        if let Some(engine) = self.engine.clone() {
            self.workers.start(OperationPruner { engine, kept: kept.count() });
        }
        self.parts.extend(self.workers.checks().split_off(own));
        self
    }

    /// A part that its health depends on.
    pub fn with_part(mut self, name: &'static str, check: PartCheck) -> Service {
        self.parts.push((name, check));
        self
    }

    /// What a person should know and what is no problem, a sentence each; shown with its health.
    pub fn with_notices(mut self, notices: impl IntoIterator<Item = String>) -> Service {
        self.notices.extend(notices);
        self
    }

    /// What is done last, after endpoints, operations and workers have ended.
    pub fn ending_with(mut self, end: BoxFuture<()>) -> Service {
        self.end = Some(end);
        self
    }

    /// Adds its endpoints, those about its operations included, to a server.
    pub fn serve(self, server: &mut Server) -> StartedService {
        (self.endpoints)(server);
        if let Some(engine) = &self.engine {
            engine.serve(server);
        }
        let Service { engine, workers, parts, notices, end, .. } = self;
        StartedService { engine, workers, health_checks: parts, notices, end }
    }
}

/// A service whose endpoints were added to a server.
pub struct StartedService {
    /// Its operations, if it has any.
    pub engine: Option<Engine>,
    /// The parts that its health depends on.
    pub health_checks: Vec<(&'static str, PartCheck)>,
    /// What is shown with its health.
    pub notices: Vec<String>,
    workers: Workers,
    end: Option<BoxFuture<()>>,
}

impl StartedService {
    /// Ends operations, workers and what else the service named, each in bounded time.
    pub async fn shut_down(self) {
        if let Some(engine) = &self.engine {
            engine.shut_down().await;
        }
        self.workers.shut_down().await;
        if let Some(end) = self.end {
            end.await;
        }
    }
}

/// Runs a service until SIGTERM or SIGINT. `build` turns settings and bus into a service; it runs inside the actix
/// system, where actors can be started. Returns the process's exit.
///
/// # Errors
/// What kept the service from starting.
pub fn run<S, B, F>(
    service: contract::Service,
    version: &'static str,
    defaults: &str,
    build: B,
) -> anyhow::Result<()>
where
    S: DeserializeOwned + Send + 'static,
    B: FnOnce(ServiceContext<S>) -> F + 'static,
    F: Future<Output = anyhow::Result<Service>> + 'static,
{
    leave_no_core_dump()?;
    end_on_panic();
    // It fails only where a provider is installed already, and then there is one.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let settings = load::<S>(service, defaults)?;
    match std::env::args().nth(1).as_deref() {
        Some(CHECK_SETTINGS) => return Ok(()),
        Some(CHECK_HEALTH) => return local_health::check(settings.health_socket.as_deref()),
        _ => {}
    }
    let instance = operation::new_id().to_string();
    let identity = telemetry::Identity {
        service: format!("loam-{service}"),
        version: version.into(),
        instance: instance.clone(),
        host: settings.host.to_string(),
    };
    let telemetry = telemetry::init(&identity)?;
    raise_limit();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(RUNTIME_THREADS).enable_all().build()?;
    let runtime = Arc::new(runtime);
    let system = {
        let runtime = Arc::clone(&runtime);
        actix::System::with_tokio_rt(move || runtime)
    };
    let outcome = system.block_on(live(service, version, instance, settings, build));
    if let Err(error) = &outcome {
        tracing::error!("{service} ends: {error:#}");
    }
    telemetry.flush();
    outcome
}

async fn live<S, B, F>(
    service: contract::Service,
    version: &'static str,
    instance: String,
    settings: Settings<S>,
    build: B,
) -> anyhow::Result<()>
where
    B: FnOnce(ServiceContext<S>) -> F,
    F: Future<Output = anyhow::Result<Service>>,
{
    let mut end = EndSignals::listen()?;
    let since = chrono::Utc::now();
    let build_id = executable_digest().context("hashing our executable")?;
    let (host, health_socket) = (settings.host.clone(), settings.health_socket.clone());
    let kept = settings.operations_kept;
    let Some(bus) = end.unless_received(open_bus(service, &settings)).await else { return Ok(()) };
    let bus = bus?;
    let chassis = ServiceContext {
        settings,
        bus: bus.clone(),
        version,
        build: build_id.clone(),
        instance: instance.clone(),
    };
    let Some(service_built) = end.unless_received(build(chassis)).await else { return Ok(()) };
    let service_built = service_built?.with_common_workers(&bus, service, kept);

    let info = ServiceInfo {
        service,
        version: version.into(),
        metadata: HashMap::from([
            ("build".into(), build_id.clone()),
            ("instance".into(), instance.clone()),
            ("host".into(), host.to_string()),
        ]),
    };
    let mut server = bus.server(info);
    let mut running = service_built.serve(&mut server);
    let template = Health {
        service,
        version: version.into(),
        build: build_id,
        instance,
        since,
        parts: Vec::new(),
        notices: std::mem::take(&mut running.notices),
    };
    let resumed = Arc::new(AtomicBool::new(running.engine.is_none()));
    let mut checks = std::mem::take(&mut running.health_checks);
    checks.push(("operations", check_resumed(&resumed)));
    checks.push(("rows", check_rows(&bus)));
    checks.push(("bus", check_bus(bus.clone())));
    checks.push(("descriptors", check_descriptors()));
    let checks = HealthChecks::new(template, checks);
    checks.serve(&mut server, &host);
    let local = checks.clone();
    let _local = health_socket
        .map(|path| LocalHealth::open(&path, move || Box::pin(local.clone().check())))
        .transpose()?;
    let Some(serving) = end.unless_received(server.open()).await else { return Ok(()) };
    let serving = serving.context("opening the endpoints")?;
    // Also while operations are resumed, which is a part of health: a bus that is away may take long.
    let notifier = Notifier::start(move || Box::pin(checks.clone().check()));
    let resuming = async {
        if let Some(engine) = &running.engine {
            resume(engine).await;
        }
        resumed.store(true, Ordering::Relaxed);
        tracing::info!(%service, version, realm = %bus.realm(), "ready");
    };
    if end.unless_received(resuming).await.is_some() {
        end.received().await;
    }
    drop(notifier);
    tracing::info!(%service, "ending");
    serving.close().await;
    running.shut_down().await;
    actix::System::current().stop();
    Ok(())
}

async fn open_bus<S>(service: contract::Service, settings: &Settings<S>) -> anyhow::Result<Bus> {
    let connection = bus::nats::Connection {
        url: settings.nats.url.clone(),
        user: contract::permissions::User::Service(service),
        nkey_file: settings.nats.nkey_file.clone(),
        ca_file: settings.nats.ca_file.clone(),
        name: format!("loam-{service}@{}", settings.host),
    };
    let transport = bus::nats::connect(&connection, BUS_WAIT_MAX).await?;
    let realm: Realm = settings.realm.clone();
    let people = settings.nats.people_file.as_ref().map(People::in_file).unwrap_or_default();
    Ok(Bus::new(Arc::new(transport), realm).with_people(people))
}

/// Unfinished operations are read again until that works: dropping them would leave work half done.
async fn resume(engine: &Engine) {
    const AGAIN: Duration = Duration::from_secs(1);
    while let Err(error) = engine.resume().await {
        tracing::warn!(error = with_causes(&error), "operations cannot be resumed yet");
        tokio::time::sleep(AGAIN).await;
    }
}

/// The beginning of the SHA-256 of the running executable: which build this is, whatever its version says.
fn executable_digest() -> std::io::Result<String> {
    let mut digest = sha256_of(Path::new("/proc/self/exe"))?;
    digest.truncate(BUILD_DIGITS);
    Ok(digest)
}

/// After a panic an actor's mailbox stays closed and a task is gone silently: half a service is worse than
/// none. The default hook prints the message and place first.
pub fn end_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        print(info);
        std::process::abort();
    }));
}
