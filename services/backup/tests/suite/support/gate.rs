//! Disk exports that stop answering reads until a test lets them go on.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use backup::ports::DiskExportConnector;
use backup_repository::source::Extent;
use backup_repository::{DiskSource, SourceError};
use bytes::Bytes;
use contract::OperationId;
use contract::provisioner::DiskExport;
use tokio::sync::watch;

/// Exports whose reads can be stopped; clones are the same exports.
#[derive(Clone)]
pub struct GatedExports {
    inner: Arc<dyn DiskExportConnector>,
    reading: Arc<watch::Sender<bool>>,
}

struct GatedSource {
    inner: Box<dyn DiskSource>,
    reading: watch::Receiver<bool>,
}

impl GatedExports {
    /// Exports that answer reads until they are stopped.
    pub fn of(inner: Arc<dyn DiskExportConnector>) -> Self {
        GatedExports { inner, reading: Arc::new(watch::Sender::new(true)) }
    }

    /// Reads wait.
    pub fn stop(&self) {
        self.reading.send_replace(false);
    }

    /// Reads go on.
    pub fn go_on(&self) {
        self.reading.send_replace(true);
    }
}

#[async_trait]
impl DiskExportConnector for GatedExports {
    async fn connect(
        &self,
        operation: &OperationId,
        export: &DiskExport,
    ) -> Result<Box<dyn DiskSource>, SourceError> {
        Ok(Box::new(GatedSource {
            inner: self.inner.connect(operation, export).await?,
            reading: self.reading.subscribe(),
        }))
    }
}

#[async_trait]
impl DiskSource for GatedSource {
    fn size_bytes(&self) -> u64 {
        self.inner.size_bytes()
    }

    async fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        self.inner.extents(range).await
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        let mut reading = self.reading.clone();
        // An error says that the test has ended.
        let _ = reading.wait_for(|reading| *reading).await;
        self.inner.read_at(offset, length).await
    }
}
