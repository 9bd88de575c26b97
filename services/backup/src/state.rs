//! The state of the service: the ports and actors that its handlers and the steps of its sagas use.

use std::sync::Arc;

use bus::Bus;
use chassis::Workers;
use contract::HostName;

use crate::actors::{RepositoryKeeper, RepositoryRefresher, TransferSlotsHandle};
use crate::adapters::lease::MaintenanceLease;
use crate::adapters::provisioner::ProvisionerClient;
use crate::adapters::repository::RepositoryConfig;
use crate::metrics::Metrics;
use crate::ports::DiskExportConnector;

/// Ports and actors.
pub struct ServiceState {
    /// The host whose sockets and files we can reach.
    pub host: HostName,
    /// For events.
    pub bus: Bus,
    /// Opens disks and creates VMs.
    pub provisioner: ProvisionerClient,
    /// Held by whoever maintains the repository, on whatever host.
    pub maintenance: MaintenanceLease,
    /// How the repository is opened and maintained.
    pub config: Arc<RepositoryConfig>,
    /// Gives out the open repository and its list of backups.
    pub repository: RepositoryKeeper,
    /// Limits how many operations move data at one time.
    pub transfer_slots: TransferSlotsHandle,
    /// How disks are read.
    pub exports: Arc<dyn DiskExportConnector>,
    /// What is counted.
    pub metrics: Metrics,
}

impl ServiceState {
    /// Starts the actors on the arbiter at hand, and the worker that keeps the repository open.
    pub fn open(
        bus: Bus,
        host: HostName,
        config: RepositoryConfig,
        exports: Arc<dyn DiskExportConnector>,
        workers: &mut Workers,
    ) -> Self {
        let (config, metrics) = (Arc::new(config), Metrics::default());
        let repository = RepositoryKeeper::default();
        let refresh = RepositoryRefresher {
            config: Arc::clone(&config),
            keeper: repository.clone(),
            metrics: metrics.clone(),
        };
        workers.start_with(refresh, repository.waker());
        ServiceState {
            provisioner: ProvisionerClient::new(bus.clone(), &host),
            maintenance: MaintenanceLease::new(&bus, host.clone()),
            host,
            bus,
            config,
            repository,
            transfer_slots: TransferSlotsHandle::start(),
            exports,
            metrics,
        }
    }
}
