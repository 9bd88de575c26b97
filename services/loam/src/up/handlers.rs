//! The supervisor's requests on the bus: list processes, and replace the executable of one.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bus::{Bus, ErrorReply, RunningServer, ServiceInfo, TransportError};
use contract::health::{CheckHealth, Health};
use contract::message::{Failure, FailureKind, NeverRefused, with_causes};
use contract::supervisor::{ListProcesses, Process, ReplaceService, ReplaceServiceRefused, ReplacedService};
use contract::{HostName, Service};
use tokio::sync::Mutex;

use super::keeper::{Handle, ProcessState};
use super::release::{ExecutableError, Executables};

/// The handlers of the supervisor's requests.
pub(super) struct Handlers {
    executables: Executables,
    keepers: HashMap<Service, Handle>,
    /// One replacement at a time: a second for the same service would interfere with the first.
    replacing: Mutex<()>,
}

/// What the supervisor reports of itself in its health.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// The host's name.
    pub(super) host: HostName,
    /// The first digits of the executable's SHA-256.
    pub(super) build: String,
    /// An id of this run.
    pub(super) instance: String,
    /// When it started.
    pub(super) since: contract::Timestamp,
}

impl Handlers {
    /// Handlers over these keepers.
    pub(super) fn over(executables: Executables, keepers: HashMap<Service, Handle>) -> Arc<Handlers> {
        Arc::new(Handlers { executables, keepers, replacing: Mutex::new(()) })
    }

    /// Opens the endpoints on the bus.
    pub(super) async fn open(
        self: Arc<Handlers>,
        bus: &Bus,
        identity: Identity,
    ) -> Result<RunningServer, TransportError> {
        let version = env!("CARGO_PKG_VERSION");
        let info = ServiceInfo {
            service: Service::Supervisor,
            version: version.into(),
            metadata: HashMap::from([
                ("build".into(), identity.build.clone()),
                ("instance".into(), identity.instance.clone()),
                ("host".into(), identity.host.to_string()),
            ]),
        };
        let health = Health {
            service: Service::Supervisor,
            version: version.into(),
            build: identity.build,
            instance: identity.instance,
            since: identity.since,
            parts: Vec::new(),
            notices: Vec::new(),
        };
        let host = identity.host;
        let mut server = bus.server(info);
        server.on::<CheckHealth, _, _>(move |_| std::future::ready(Ok(health.clone())));
        let (list, list_here) = (Arc::clone(&self), Arc::clone(&self));
        server.on::<ListProcesses, _, _>(move |_| {
            std::future::ready(Ok::<_, ErrorReply<NeverRefused>>(list.list()))
        });
        server.on_host::<ListProcesses, _, _>(&host, move |_| std::future::ready(Ok(list_here.list())));
        let (replace, replace_here) = (Arc::clone(&self), self);
        server.on::<ReplaceService, _, _>(move |asked| Arc::clone(&replace).replace(asked.request));
        server.on_host::<ReplaceService, _, _>(&host, move |asked| {
            Arc::clone(&replace_here).replace(asked.request)
        });
        server.open().await
    }

    fn list(&self) -> Vec<Process> {
        let here =
            Service::FIVE.into_iter().filter_map(|service| Some((service, self.keepers.get(&service)?)));
        here.map(|(service, keeper)| {
            let status = keeper.status();
            let pid = match status.state {
                ProcessState::Up(pid) => Some(pid),
                ProcessState::Down(_) | ProcessState::Stopped => None,
            };
            Process {
                service,
                pid,
                executable: status.executable,
                since: status.since,
                restarts: status.restarts,
            }
        })
        .collect()
    }

    async fn replace(
        self: Arc<Self>,
        wanted: ReplaceService,
    ) -> Result<ReplacedService, ErrorReply<ReplaceServiceRefused>> {
        let ReplaceService { service, executable } = wanted;
        let Some(keeper) = self.keepers.get(&service) else {
            return Err(ErrorReply::Refused(ReplaceServiceRefused::NotOnThisHost(service)));
        };
        let _one_at_a_time = self.replacing.lock().await;
        let (before, changes) = self.record(service, executable).await?;
        if changes {
            keeper.restart().await.map_err(|reason| failed(format!("restarting {service}: {reason}")))?;
        }
        Ok(ReplacedService { executable_before: before })
    }

    /// Records what is to run. Hashing executables takes a moment, so it runs on another thread.
    async fn record(
        &self,
        service: Service,
        executable: PathBuf,
    ) -> Result<(PathBuf, bool), ErrorReply<ReplaceServiceRefused>> {
        let executables = self.executables.clone();
        let runs_from = self.keepers.get(&service).map(|keeper| keeper.status().executable);
        let work = move || -> Result<(PathBuf, bool), ErrorReply<ReplaceServiceRefused>> {
            if executable != executables.installed(service) {
                executables.usable(&executable).map_err(ErrorReply::Refused)?;
            }
            let changes = runs_from.as_ref() != Some(&executable);
            let kept: Result<PathBuf, ExecutableError> = executables.record(service, &executable);
            let before = kept.map_err(|error| failed(with_causes(&error)))?;
            Ok((before, changes))
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| failed(error.to_string()))?
    }
}

fn failed(message: String) -> ErrorReply<ReplaceServiceRefused> {
    ErrorReply::Failed(Failure { kind: FailureKind::Unavailable, message })
}
