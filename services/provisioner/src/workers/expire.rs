//! Closes the disk exports whose lease has expired, and those that could not be closed before.

use std::time::Duration;

use chassis::Worker;

use crate::actors::ExportKeeperHandle;

/// The longest time between two rounds.
const INTERVAL_MAX: Duration = Duration::from_secs(5);

/// The worker.
pub struct ExportExpirer {
    exports: ExportKeeperHandle,
    interval: Duration,
}

impl ExportExpirer {
    /// For leases that last as long.
    pub fn new(exports: ExportKeeperHandle, lease: Duration) -> ExportExpirer {
        ExportExpirer { exports, interval: INTERVAL_MAX.min(lease / 4) }
    }
}

impl Worker for ExportExpirer {
    fn name(&self) -> &'static str {
        "expire_exports"
    }
    fn interval(&self) -> Duration {
        self.interval
    }
    fn timeout(&self) -> Duration {
        crate::actors::EXPORT_ANSWER_MAX
    }
    async fn round(&mut self) -> Result<(), String> {
        self.exports.expire().await
    }
}
