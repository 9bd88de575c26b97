//! Removes the records of operations that ended long ago.

use std::time::Duration;

use contract::message::with_causes;
use operation::Engine;

use crate::worker::Worker;

/// Between two rounds the table grows by what ends meanwhile.
const INTERVAL: Duration = Duration::from_secs(60);
/// A round removes a bounded number of records.
const ROUND_MAX: Duration = Duration::from_secs(60);

/// Keeps the newest ended operations of a service on its host.
pub(crate) struct OperationPruner {
    pub(crate) engine: Engine,
    /// How many are kept.
    pub(crate) kept: usize,
}

impl Worker for OperationPruner {
    fn name(&self) -> &'static str {
        "prune_operations"
    }
    fn interval(&self) -> Duration {
        INTERVAL
    }
    fn timeout(&self) -> Duration {
        ROUND_MAX
    }
    async fn round(&mut self) -> Result<(), String> {
        self.engine.prune(self.kept).await.map_err(|error| with_causes(&error))
    }
}
