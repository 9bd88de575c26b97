//! What the service needs beyond the bus and the store: to read a disk through its NBD export.
//!
//! ```text
//!   DiskExportConnector --by--> NbdExports   a connection to QEMU's NBD server, passed by the provisioner
//! ```
//!
//! The provisioner is called over the bus (`adapters/provisioner.rs`), the store is used through `backup-repository`
//! (`adapters/repository.rs`); neither needs a port, because tests use the real thing for both.

use async_trait::async_trait;
use backup_repository::{DiskSource, SourceError};
use contract::OperationId;
use contract::provisioner::DiskExport;

/// Reads disks through the exports that the provisioner opened.
#[async_trait]
pub trait DiskExportConnector: Send + Sync + 'static {
    /// Connects to an export that is open for this operation: the disk, ready to be read.
    ///
    /// # Errors
    /// When nothing serves the export, or it does not answer in time.
    async fn connect(
        &self,
        operation: &OperationId,
        export: &DiskExport,
    ) -> Result<Box<dyn DiskSource>, SourceError>;
}
