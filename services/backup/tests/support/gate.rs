//! Doors behind which reading stands still until a test lets it go on.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use backup::ports::Doors;
use backup_repository::source::Extent;
use backup_repository::{DiskSource, SourceError};
use bytes::Bytes;
use contract::provisioner::DiskExport;
use tokio::sync::watch;

/// Doors that can be held shut for readers; clones are the same doors.
#[derive(Clone)]
pub struct GatedDoors {
    inner: Arc<dyn Doors>,
    open: Arc<watch::Sender<bool>>,
}

struct GatedSource {
    inner: Box<dyn DiskSource>,
    open: watch::Receiver<bool>,
}

impl GatedDoors {
    /// Doors that stand open for readers until they are shut.
    pub fn of(inner: Arc<dyn Doors>) -> Self {
        GatedDoors { inner, open: Arc::new(watch::Sender::new(true)) }
    }

    /// Readers stand still.
    pub fn shut(&self) {
        self.open.send_replace(false);
    }

    /// Readers go on.
    pub fn open(&self) {
        self.open.send_replace(true);
    }
}

#[async_trait]
impl Doors for GatedDoors {
    async fn reach(&self, door: &DiskExport) -> Result<Box<dyn DiskSource>, SourceError> {
        Ok(Box::new(GatedSource { inner: self.inner.reach(door).await?, open: self.open.subscribe() }))
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
        let mut open = self.open.clone();
        // The doors outlive the test.
        let _ = open.wait_for(|open| *open).await;
        self.inner.read_at(offset, length).await
    }
}
