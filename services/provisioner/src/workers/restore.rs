//! Writes the rows of this host again when their table was lost and made anew.

use std::time::Duration;

use bus::Bus;
use chassis::Worker;
use contract::bucket;
use provisioner_domain::{SeedImageRecord, VmRecord};
use tokio::sync::watch;

use crate::actors::RegistryHandle;

/// How soon rows are written again once the loss was found.
const INTERVAL: Duration = Duration::from_secs(5);
/// Some thousand rows.
const ROUND_MAX: Duration = Duration::from_secs(60);

/// The worker.
pub struct RowRestorer {
    registry: RegistryHandle,
    /// Of VMs and of seeds: how often each was found lost.
    generations: [watch::Receiver<u64>; 2],
}

impl RowRestorer {
    /// For the rows that a registry owns.
    pub fn new(bus: &Bus, registry: RegistryHandle) -> RowRestorer {
        let vms = bus.table::<VmRecord>(bucket::VMS).generation();
        let seeds = bus.table::<SeedImageRecord>(bucket::SEEDS).generation();
        RowRestorer { registry, generations: [vms, seeds] }
    }
}

impl Worker for RowRestorer {
    fn name(&self) -> &'static str {
        "restore_rows"
    }
    fn interval(&self) -> Duration {
        INTERVAL
    }
    fn timeout(&self) -> Duration {
        ROUND_MAX
    }
    async fn round(&mut self) -> Result<(), String> {
        if !self.generations.iter().any(|generation| generation.has_changed().unwrap_or(false)) {
            return Ok(());
        }
        self.generations.iter_mut().for_each(watch::Receiver::mark_unchanged);
        let restored = self.registry.restore_rows().await;
        if restored.is_err() {
            self.generations.iter_mut().for_each(watch::Receiver::mark_changed);
        }
        restored.map_err(|failure| failure.to_string())
    }
}
