//! What we ask of the world beyond the bus and the store: to read a disk through its door.
//!
//! ```text
//!   Doors --by--> NbdDoors   the unix socket of QEMU's NBD server
//! ```
//!
//! The provisioner is asked over the bus (`provisioner.rs`), the store through `backup-repository`
//! (`adapters/shelf.rs`); neither needs a port, because tests have the real thing for both.

use async_trait::async_trait;
use backup_repository::{DiskSource, SourceError};
use contract::provisioner::DiskExport;

/// Reads disks through the doors that the provisioner opened.
#[async_trait]
pub trait Doors: Send + Sync + 'static {
    /// Goes through a door: the disk behind it, ready to be read.
    ///
    /// # Errors
    /// When nobody is behind the door, or does not answer in time.
    async fn reach(&self, door: &DiskExport) -> Result<Box<dyn DiskSource>, SourceError>;
}
