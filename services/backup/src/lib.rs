//! The backup service: copies the disks of VMs into a repository, restores them, verifies that they can be read back,
//! forgets by retention rules and deletes what nobody needs any more.
//!
//! ```text
//!   StartBackup, RestoreBackupAsVm, VerifyBackup, ListBackups,                    (contract::backup, over the bus)
//!   VerifyRepository, CollectRepository, ApplyRetention
//!        |
//!      handlers ---rules---> backup-domain                          decides
//!        |
//!      sagas, one for each command                                  act, step by step, and undo
//!        |            \               \
//!   provisioner     DiskExportConnector     RepositoryKeeper, TransferSlots
//!   (over the bus)  (NBD sockets)        |
//!        opens disks,               backup-repository --> folder | S3
//!        creates VMs
//! ```
//!
//! Promises: a backup exists whole or not at all, and has the id of the operation that made it; whatever dies in the
//! middle, the operation goes on or leaves nothing; while the store is down every command is refused at once with the
//! reason, and it is used again when it returns, without a restart; a repository is never created unless the settings
//! ask for it; nothing is deleted that a backup, finished or under way, needs.
//!
//! It deliberately does not know when backups are due (the scheduler), how disks are frozen at one moment (the
//! provisioner), nor how things are stored (`repository/`). Next: `wiring.rs`, then `sagas/`.

pub mod actors;
pub mod adapters;
pub mod config;
mod handlers;
pub mod metrics;
pub mod ports;
mod sagas;
mod state;
mod wiring;

use std::sync::Arc;

use bus::Bus;
use chassis::Workers;
use contract::{HostName, Service};

use crate::adapters::repository::RepositoryConfig;
use crate::handlers::Handlers;
use crate::ports::DiskExportConnector;
pub use crate::state::ServiceState;

/// Opens the service: starts its actors on the arbiter at hand and its workers, and returns what answers.
pub fn open(
    bus: Bus,
    host: HostName,
    repository: RepositoryConfig,
    exports: Arc<dyn DiskExportConnector>,
) -> chassis::Service {
    let mut workers = Workers::default();
    let state = Arc::new(ServiceState::open(bus.clone(), host.clone(), repository, exports, &mut workers));
    let (engine, wiring) = wiring::wiring().open_engine(&bus, Service::Backup, &host, &state);
    let store = state.repository.check();
    chassis::Service::new(wiring, Handlers::new(state, engine))
        .with_workers(workers)
        .with_part("store", store)
}
