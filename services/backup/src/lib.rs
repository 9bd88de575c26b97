//! The backup service: copies machines' disks into a store, gives them back, and checks that they are whole.
//!
//! ```text
//!   StartBackup, RestoreBackup, VerifyBackup, ListBackups          (contract::backup, over the bus)
//!        |
//!      wiring ---rules---> backup-domain                           decides
//!        |
//!      sagas: start_backup, restore_backup, verify_backup          do, step by step, and undo
//!        |            \               \
//!   provisioner        doors           Librarian, Copyists
//!   (over the bus)     (NBD sockets)        |
//!        opens disks,                  backup-repository --> folder | S3
//!        makes machines
//! ```
//!
//! Promises: a backup exists whole or not at all, and carries the id of the operation that made it; whatever dies in
//! the middle, the operation goes on or leaves nothing; a store that is down is said so at once, in words, and used
//! again when it returns, without a restart; a repository is never made unless the settings ask for it.
//!
//! It deliberately does not know when backups are due (the scheduler), how disks are frozen in time (the
//! provisioner), nor how things are stored (`repository/`). Next: `wiring.rs`, then `sagas/`.

pub mod actors;
pub mod adapters;
pub mod config;
pub mod metrics;
pub mod ports;
pub mod provisioner;
pub mod sagas;
mod wiring;

use std::sync::Arc;

use bus::Bus;
use contract::{HostName, Service};
use operation::Operations;

use crate::actors::{CopyistsDesk, Librarian, Library, Pace};
use crate::adapters::shelf::Shelf;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::ports::Doors;
use crate::provisioner::Provisioner;
use crate::sagas::{Restore, Start, Verify, World};

/// Runs the service until it is told to end.
///
/// # Errors
/// When its settings cannot be used, or there is no bus.
pub fn run(doors: Arc<dyn Doors>) -> anyhow::Result<()> {
    chassis::run::<Config, _, _>(Service::Backup, env!("CARGO_PKG_VERSION"), "", |chassis| async move {
        let shelf = config::shelf(&chassis.settings)?;
        Ok(build(chassis.bus, chassis.settings.host, shelf, Pace::default(), doors))
    })
}

/// Builds the service: starts its actors on the arbiter at hand and returns what answers.
pub fn build(bus: Bus, host: HostName, shelf: Shelf, pace: Pace, doors: Arc<dyn Doors>) -> chassis::Service {
    let world = Arc::new(world(bus.clone(), host, shelf, pace, doors));
    let operations = Operations::of(bus, Service::Backup)
        .with::<Start>(Arc::clone(&world))
        .with::<Restore>(Arc::clone(&world))
        .with::<Verify>(Arc::clone(&world))
        .open();
    let library = world.library.clone();
    let store: chassis::PartCheck = Arc::new(move || {
        let library = library.clone();
        Box::pin(async move { library.trouble().await })
    });
    let at_desk = operations.clone();
    chassis::Service {
        endpoints: Some(Box::new(move |server| wiring::wire(server, world, at_desk))),
        operations: Some(operations),
        parts: vec![("store", store)],
        end: None,
    }
}

/// The world that the sagas act in, with its actors started.
pub fn world(bus: Bus, host: HostName, shelf: Shelf, pace: Pace, doors: Arc<dyn Doors>) -> World {
    let metrics = Metrics::default();
    World {
        host,
        provisioner: Provisioner::new(bus.clone()),
        bus,
        library: Library::start(Librarian::new(shelf, pace, metrics.clone())),
        copyists: CopyistsDesk::start(),
        doors,
        metrics,
    }
}
