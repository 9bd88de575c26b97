//! Disk exports of QEMU's NBD servers, on unix sockets of this host.

use async_trait::async_trait;
use backup_repository::{DiskSource, NbdAddress, NbdExportSettings, NbdSource, SourceError};
use contract::provisioner::DiskExport;

use crate::ports::DiskExportConnector;

/// Reads only what is allocated, many requests in flight, each with a deadline.
#[derive(Clone, Copy, Debug, Default)]
pub struct NbdExports;

#[async_trait]
impl DiskExportConnector for NbdExports {
    async fn connect(&self, export: &DiskExport) -> Result<Box<dyn DiskSource>, SourceError> {
        let settings = NbdExportSettings::new(NbdAddress::Unix(export.socket.clone()), &export.export_name);
        let source = NbdSource::connect(&settings).await?;
        if source.size_bytes() != export.size.0 {
            return Err(SourceError::Protocol {
                what: settings.to_string(),
                why: format!("it has {} bytes where {} were announced", source.size_bytes(), export.size.0),
            });
        }
        Ok(Box::new(source))
    }
}
