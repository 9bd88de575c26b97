//! The sagas of the backup service, and the world that their steps act in.
//!
//! ```text
//!   start_backup     queue -> open_disks -> copy -> close_disks -> seal
//!   restore_backup   resolve -> reserve -> write -> adopt
//!   verify_backup    resolve -> verify
//! ```
//!
//! Each passes `saga::harness` (tests/rehearsals.rs): every step twice, failing, and with a crash after each record.

mod restore_backup;
mod start_backup;
mod verify_backup;
mod work;

pub use restore_backup::{Restore, RestoredVm};
pub use start_backup::Start;
pub use verify_backup::{Verified, Verify};

use std::sync::Arc;

use bus::Bus;
use contract::HostName;

use crate::actors::{CopyistsDesk, Library};
use crate::metrics::Metrics;
use crate::ports::Doors;
use crate::provisioner::Provisioner;

/// What the steps use.
pub struct World {
    /// The host whose sockets and files we can reach.
    pub host: HostName,
    /// For telling what happened.
    pub bus: Bus,
    /// Who opens disks and makes machines.
    pub provisioner: Provisioner,
    /// Who keeps the repository.
    pub library: Library,
    /// Who gives out places for heavy work.
    pub copyists: CopyistsDesk,
    /// How disks are read.
    pub doors: Arc<dyn Doors>,
    /// What is counted.
    pub metrics: Metrics,
}
