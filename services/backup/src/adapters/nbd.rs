//! Disk exports of QEMU's NBD servers, through connections that the provisioner makes and passes to us.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use backup_repository::{DiskSource, NbdAddress, NbdExportSettings, NbdSource, SourceError};
use contract::OperationId;
use contract::provisioner::{ConnectToExport, DiskExport};

use crate::ports::DiskExportConnector;

/// The provisioner looks it up in memory and connects to a local socket.
const CONNECT_MAX: Duration = Duration::from_secs(15);

/// Reads only what is allocated, many requests in flight, each with a deadline.
#[derive(Clone, Debug)]
pub struct NbdExports {
    /// The socket at which the provisioner passes connections.
    descriptors: PathBuf,
}

impl NbdExports {
    /// Exports whose connections are passed at this socket.
    pub fn at(descriptors: PathBuf) -> NbdExports {
        NbdExports { descriptors }
    }
}

#[async_trait]
impl DiskExportConnector for NbdExports {
    async fn connect(
        &self,
        operation: &OperationId,
        export: &DiskExport,
    ) -> Result<Box<dyn DiskSource>, SourceError> {
        let settings = NbdExportSettings::new(NbdAddress::Unix(export.socket.clone()), &export.export_name);
        let wanted =
            ConnectToExport { operation_id: operation.clone(), export_name: export.export_name.clone() };
        let passed = chassis::request_descriptor(&self.descriptors, &wanted, CONNECT_MAX).await;
        let passed = passed.map_err(|error| SourceError::Io {
            attempt: "get a connection to",
            what: settings.to_string(),
            source: io::Error::other(error),
        })?;
        let source = NbdSource::on_stream(UnixStream::from(passed), &settings).await?;
        if source.size_bytes() != export.size.0 {
            return Err(SourceError::Protocol {
                what: settings.to_string(),
                why: format!("it has {} bytes where {} were announced", source.size_bytes(), export.size.0),
            });
        }
        Ok(Box::new(source))
    }
}
