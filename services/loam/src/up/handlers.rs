//! The supervisor's requests on the bus: list processes, and replace the executable of one.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex as StdMutex, MutexGuard};

use bus::{Bus, ErrorReply, RunningServer, ServiceInfo, TransportError};
use contract::health::{CheckHealth, Health};
use contract::message::{Failure, FailureKind, NeverRefused, with_causes};
use contract::supervisor::{
    BuildPutBack, JoinHost, ListProcesses, Process, ReplaceService, ReplaceServiceRefused, ReplacedService,
};
use contract::{HostName, Service, Timestamp};
use tokio::sync::Mutex;

use super::keeper::{Handle, ProcessState};
use super::release::{ExecutableError, Executables};
use crate::admission::answer;
use crate::state::State;

/// The handlers of the supervisor's requests.
pub(super) struct Handlers {
    executables: Executables,
    keepers: HashMap<Service, Handle>,
    host: HostName,
    /// The services whose build was put back, until another one is put in place.
    put_back: StdMutex<BTreeMap<Service, BuildPutBack>>,
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
    pub(super) fn over(
        executables: Executables,
        keepers: HashMap<Service, Handle>,
        host: HostName,
    ) -> Arc<Handlers> {
        let note = |service| Some((service, executables.put_back_note(service)?));
        let put_back = StdMutex::new(keepers.keys().copied().filter_map(note).collect());
        Arc::new(Handlers { executables, keepers, host, put_back, replacing: Mutex::new(()) })
    }

    /// What people should know of a service: that its build was put back.
    pub(super) fn notice(&self, service: Service) -> Option<String> {
        self.notes().get(&service).map(|put_back| {
            let BuildPutBack { build, build_now, reason, at, .. } = put_back;
            let at = at.format("%Y-%m-%d %H:%M:%SZ");
            format!("build {build_now} was put back at {at}, because build {build} kept dying: {reason}")
        })
    }

    fn notices(&self) -> Vec<String> {
        let notice = |service| Some(format!("{service}: {}", self.notice(service)?));
        Service::FIVE.into_iter().filter_map(notice).collect()
    }

    fn notes(&self) -> MutexGuard<'_, BTreeMap<Service, BuildPutBack>> {
        self.put_back.lock().expect("no code here panics while it holds the lock")
    }

    /// The executable that an upgrade put in place, and when.
    pub(super) async fn upgraded(&self, service: Service) -> Option<(PathBuf, Timestamp)> {
        let executables = self.executables.clone();
        tokio::task::spawn_blocking(move || executables.upgraded(service)).await.ok()?
    }

    /// Runs a service from what it ran from before the last upgrade, because it keeps dying for this reason.
    pub(super) async fn put_back(
        &self,
        service: Service,
        reason: String,
    ) -> Result<Option<BuildPutBack>, String> {
        let _one_at_a_time = self.replacing.lock().await;
        let (executables, host) = (self.executables.clone(), self.host.clone());
        let record = move || executables.put_back(service, &host, &reason, chrono::Utc::now());
        let recorded = tokio::task::spawn_blocking(record).await.map_err(|error| error.to_string())?;
        let Some(put_back) = recorded.map_err(|error| with_causes(&error))? else { return Ok(None) };
        self.notes().insert(service, put_back.clone());
        if let Some(keeper) = self.keepers.get(&service) {
            keeper.restart().await?;
        }
        Ok(Some(put_back))
    }

    /// Opens the endpoints on the bus. `admits` is the state directory where the settings of the bus are written here:
    /// then hosts that join are answered.
    pub(super) async fn open(
        self: Arc<Handlers>,
        bus: &Bus,
        identity: Identity,
        admits: Option<State>,
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
        if let Some(state) = admits {
            server.on_host::<JoinHost, _, _>(&host, move |incoming| {
                let state = state.clone();
                async move { answer::join(&state, incoming).await }
            });
        }
        let this = Arc::clone(&self);
        server.on::<CheckHealth, _, _>(move |_| {
            std::future::ready(Ok(Health { notices: this.notices(), ..health.clone() }))
        });
        let (list, list_here) = (Arc::clone(&self), Arc::clone(&self));
        server.on::<ListProcesses, _, _>(move |_| {
            let list = Arc::clone(&list);
            async move { Ok::<_, ErrorReply<NeverRefused>>(list.list().await) }
        });
        server.on_host::<ListProcesses, _, _>(&host, move |_| {
            let list = Arc::clone(&list_here);
            async move { Ok(list.list().await) }
        });
        let (replace, replace_here) = (Arc::clone(&self), self);
        server.on::<ReplaceService, _, _>(move |asked| Arc::clone(&replace).replace(asked.request));
        server.on_host::<ReplaceService, _, _>(&host, move |asked| {
            Arc::clone(&replace_here).replace(asked.request)
        });
        server.open().await
    }

    async fn list(&self) -> Vec<Process> {
        let mut processes = Vec::new();
        for service in Service::FIVE {
            let Some(keeper) = self.keepers.get(&service) else { continue };
            let status = keeper.status();
            let pid = match status.state {
                ProcessState::Up(pid) => Some(pid),
                ProcessState::Down(_) | ProcessState::Stopped => None,
            };
            processes.push(Process {
                service,
                pid,
                executable: status.executable,
                executable_before: self.before(service).await,
                since: status.since,
                restarts: status.restarts,
            });
        }
        processes
    }

    /// Hashing executables takes a moment, so it runs on another thread.
    async fn before(&self, service: Service) -> Option<PathBuf> {
        let executables = self.executables.clone();
        tokio::task::spawn_blocking(move || executables.before(service)).await.ok()?
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
            self.notes().remove(&service);
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
            let executable = executables.admit(service, &executable).map_err(ErrorReply::Refused)?;
            let changes = runs_from.as_ref() != Some(&executable);
            let kept: Result<PathBuf, ExecutableError> =
                executables.record(service, &executable, chrono::Utc::now());
            let before = kept.map_err(|error| failed(with_causes(&error)))?;
            Ok((before, changes))
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| failed(error.to_string()))?
    }
}

fn failed(message: String) -> ErrorReply<ReplaceServiceRefused> {
    ErrorReply::Failed(Failure { kind: FailureKind::Unavailable, message })
}
