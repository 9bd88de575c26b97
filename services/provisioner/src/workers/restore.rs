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
    /// The same, as far as rows are written again.
    restored: [u64; 2],
}

impl RowRestorer {
    /// For the rows that a registry owns. A loss that was found before it was made counts, too.
    pub fn new(bus: &Bus, registry: RegistryHandle) -> RowRestorer {
        let vms = bus.table::<VmRecord>(bucket::VMS).generation();
        let seeds = bus.table::<SeedImageRecord>(bucket::SEEDS).generation();
        RowRestorer { registry, generations: [vms, seeds], restored: [0; 2] }
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
        let now = self.generations.each_ref().map(|generation| *generation.borrow());
        if now != self.restored {
            self.registry.restore_rows().await.map_err(|failure| failure.to_string())?;
            // Only now: a round that is cut off before is done again.
            self.restored = now;
        }
        Ok(())
    }
}
