//! Doors of QEMU's NBD servers, on unix sockets of this host.

use async_trait::async_trait;
use backup_repository::{DiskSource, NbdAddress, NbdSettings, NbdSource, SourceError};
use contract::provisioner::DiskExport;

use crate::ports::Doors;

/// Reads only what is allocated, many requests in flight, each with a deadline.
#[derive(Clone, Copy, Debug, Default)]
pub struct NbdDoors;

#[async_trait]
impl Doors for NbdDoors {
    async fn reach(&self, door: &DiskExport) -> Result<Box<dyn DiskSource>, SourceError> {
        let settings = NbdSettings::new(NbdAddress::Unix(door.socket.clone()), &door.export);
        let source = NbdSource::connect(&settings).await?;
        if source.size_bytes() != door.size.0 {
            return Err(SourceError::Protocol {
                what: settings.to_string(),
                why: format!("it has {} bytes where {} were told", source.size_bytes(), door.size.0),
            });
        }
        Ok(Box::new(source))
    }
}
