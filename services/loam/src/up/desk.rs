//! The supervisor's words on the bus: which processes there are, and put another executable in one's place.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use bus::{Bus, Declined, TransportError, ServiceInfo, RunningServer};
use contract::operation::{CheckHealth, Health};
use contract::supervisor::{ListProcesses, Process, ReplaceService, ReplaceServiceRefused, Replaced};
use contract::message::{Failure, FailureKind, NoRefusal};
use contract::{HostName, Service};
use tokio::sync::Mutex;

use super::keeper::{Handle, Phase};
use super::release::{Executables, ReleaseError};

/// What answers.
pub(super) struct Desk {
    executables: Executables,
    keepers: HashMap<Service, Handle>,
    /// One replacement at a time: a second for the same service would otherwise meet the first half way.
    replacing: Mutex<()>,
}

/// Who we are, as we answer when asked how we are.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    /// Our host.
    pub(super) host: HostName,
    /// Our build.
    pub(super) build: String,
    /// This run.
    pub(super) instance: String,
    /// Since when.
    pub(super) since: contract::Timestamp,
}

impl Desk {
    /// A desk over these keepers.
    pub(super) fn over(executables: Executables, keepers: HashMap<Service, Handle>) -> Arc<Desk> {
        Arc::new(Desk { executables, keepers, replacing: Mutex::new(()) })
    }

    /// Opens it on the bus.
    pub(super) async fn open(self: Arc<Desk>, bus: &Bus, identity: Identity) -> Result<Serving, TransportError> {
        let version = env!("CARGO_PKG_VERSION");
        let card = ServiceInfo {
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
        };
        let host = identity.host;
        let mut server = bus.server(card);
        server.on::<CheckHealth, _, _>(move |_| std::future::ready(Ok(health.clone())));
        let (list, list_here) = (Arc::clone(&self), Arc::clone(&self));
        server
            .on::<ListProcesses, _, _>(move |_| std::future::ready(Ok::<_, Declined<NoRefusal>>(list.list())));
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
            let view = keeper.view();
            let pid = match view.phase {
                Phase::Up(pid) => Some(pid),
                Phase::Down(_) | Phase::Ended => None,
            };
            Process { service, pid, executable: view.executable, since: view.since, restarts: view.restarts }
        })
        .collect()
    }

    async fn replace(
        self: Arc<Self>,
        wanted: ReplaceService,
    ) -> Result<Replaced, Declined<ReplaceServiceRefused>> {
        let ReplaceService { service, executable } = wanted;
        let Some(keeper) = self.keepers.get(&service) else {
            return Err(Declined::Refused(ReplaceServiceRefused::NotHere(service)));
        };
        let _one_at_a_time = self.replacing.lock().await;
        let (before, changes) = self.remember(service, executable).await?;
        if changes {
            keeper.restart().await.map_err(|reason| failed(format!("starting {service} anew: {reason}")))?;
        }
        Ok(Replaced { before })
    }

    /// Writes down what is to run. Hashing executables takes a moment, so it happens aside.
    async fn remember(
        &self,
        service: Service,
        executable: PathBuf,
    ) -> Result<(PathBuf, bool), Declined<ReplaceServiceRefused>> {
        let executables = self.executables.clone();
        let runs_from = self.keepers.get(&service).map(|keeper| keeper.view().executable);
        let work = move || -> Result<(PathBuf, bool), Declined<ReplaceServiceRefused>> {
            if executable != executables.installed(service) {
                executables.usable(&executable).map_err(Declined::Refused)?;
            }
            let changes = runs_from.as_ref() != Some(&executable);
            let kept: Result<PathBuf, ReleaseError> = executables.remember(service, &executable);
            let before = kept.map_err(|error| failed(chain(&error)))?;
            Ok((before, changes))
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| failed(error.to_string()))?
    }
}

fn failed(message: String) -> Declined<ReplaceServiceRefused> {
    Declined::Failed(Failure { kind: FailureKind::Unavailable, message })
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text.push_str(&format!(": {deeper}"));
        cause = deeper.source();
    }
    text
}
