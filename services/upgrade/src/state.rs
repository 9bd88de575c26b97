//! What the steps use: releases on disk, and the supervisor and services of this host on the bus.

use std::path::PathBuf;
use std::time::Duration;

use bus::{Bus, CallError, Destination, TransportError};
use contract::health::Health;
use contract::message::with_causes;
use contract::supervisor::{ListProcesses, Process, ReplaceService, ReplaceServiceRefused};
use contract::{HostName, Service};
use operation::call_error;
use saga::StepError;
use tokio::time::Instant;
use upgrade_domain::{HealthObservation, HealthWatch};

use crate::discovery::health_at;
use crate::release_dir::{ReleaseDir, ReleaseDirError};

/// The supervisor answers from memory.
const LIST_MAX: Duration = Duration::from_secs(5);
/// The supervisor gives the old process fifteen seconds to end, and then kills it.
pub(crate) const REPLACE_MAX: Duration = Duration::from_secs(45);
/// A service checks its parts before it answers, each for at most three seconds.
const HEALTH_MAX: Duration = Duration::from_secs(10);
/// Between two checks of a service that is starting.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The state of the service that its saga uses.
pub struct UpgradeContext {
    /// The bus.
    pub bus: Bus,
    /// Our host; only its services are replaced.
    pub host: HostName,
    /// Releases on disk.
    pub releases: ReleaseDir,
    /// How long a new build may take to become healthy.
    pub ready_within: Duration,
    /// How long it must then stay healthy.
    pub soak: Duration,
}

impl UpgradeContext {
    fn on_our_host(&self, service: Service) -> Destination {
        Destination { service, host: Some(self.host.clone()) }
    }

    /// The watch over a build that is started; parts that had a problem before do not count.
    pub(crate) fn watch(&self, build: &str, degraded_before: Vec<String>) -> HealthWatch {
        HealthWatch::new(build, self.ready_within, self.soak).ignoring(degraded_before)
    }

    pub(crate) async fn health_of(
        &self,
        service: Service,
    ) -> Result<Health, CallError<contract::NeverRefused>> {
        health_at(&self.bus, &self.on_our_host(service), HEALTH_MAX).await
    }

    /// What is observed of a service now; nothing while the bus itself is away, which is not the service's fault.
    pub(crate) async fn observe(&self, service: Service) -> Option<HealthObservation> {
        let health = match self.health_of(service).await {
            Ok(health) => Some(health),
            Err(CallError::Transport { source: TransportError::Disconnected { .. }, .. }) => return None,
            Err(_) => None,
        };
        let restarts = self.process(service).await.ok().map(|process| process.restarts);
        Some(HealthObservation { health, restarts })
    }

    /// The processes of our host.
    pub(crate) async fn processes(&self) -> Result<Vec<Process>, StepError> {
        let supervisor = self.on_our_host(Service::Supervisor);
        self.bus.call_at(supervisor, &ListProcesses {}, LIST_MAX).await.map_err(call_error)
    }

    pub(crate) async fn process(&self, service: Service) -> Result<Process, StepError> {
        let found = self.processes().await?.into_iter().find(|process| process.service == service);
        found.ok_or_else(|| StepError::Permanent(ReplaceServiceRefused::NotOnThisHost(service).to_string()))
    }

    /// Lets the supervisor run a service from an executable; a no-op where it does so already. Returns the executable
    /// before.
    pub(crate) async fn run_from(&self, service: Service, executable: PathBuf) -> Result<PathBuf, StepError> {
        let (supervisor, command) =
            (self.on_our_host(Service::Supervisor), ReplaceService { service, executable });
        let replaced = self.bus.call_at(supervisor, &command, REPLACE_MAX).await.map_err(call_error)?;
        Ok(replaced.executable_before)
    }

    /// Waits until a build answers, healthy or not: it may not have been healthy before the upgrade either.
    pub(crate) async fn wait_for_answer(
        &self,
        service: Service,
        build: Option<&str>,
    ) -> Result<(), StepError> {
        let started = Instant::now();
        loop {
            match self.health_of(service).await {
                Ok(health) if build.is_none_or(|build| build == health.build) => return Ok(()),
                _ if started.elapsed() < self.ready_within => tokio::time::sleep(POLL_INTERVAL).await,
                Ok(health) => {
                    return Err(StepError::Transient(format!("build {} still answers", health.build)));
                }
                Err(error) => return Err(StepError::Transient(with_causes(&error))),
            }
        }
    }

    /// Works on the releases. Their disk is ours: what fails there is not tried again.
    pub(crate) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReleaseDir) -> Result<T, ReleaseDirError> + Send + 'static,
    ) -> Result<T, StepError> {
        self.releases.in_background(work).await.map_err(|error| StepError::Permanent(with_causes(&error)))
    }
}
