//! Reports this host to the others, and reads which of them report; now and then brings its names in line with its VMs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chassis::Worker;
use contract::VmUuid;
use contract::message::with_causes;
use contract::provisioner::UnclaimedVm;
use provisioner_domain::{HostRecord, Inventory};

use crate::installation::Installation;
use crate::state::ServiceState;

/// Names are wrong only after a crash between two writes, and then for a name that nobody waits for.
const REPAIR_INTERVAL: Duration = Duration::from_secs(300);
/// VMs without a row that are listed: after the loss of a table there may be very many.
const UNCLAIMED_MAX: usize = 100;
/// A few reads and writes of a bus that just lost its leader.
const ROUND_MAX: Duration = Duration::from_secs(60);

/// The worker.
pub struct HostReporter {
    state: Arc<ServiceState>,
    repaired: Option<Instant>,
}

impl HostReporter {
    /// One that has reported nothing yet.
    pub fn new(state: Arc<ServiceState>) -> HostReporter {
        HostReporter { state, repaired: None }
    }

    async fn report(&self) -> Result<HostRecord, String> {
        let inventory = self.state.registry.snapshot().await.map_err(|failure| failure.to_string())?;
        let capacity = self.state.hypervisor.capacity().await.ok();
        let info = self.state.hypervisor.info();
        let unclaimed = self.unclaimed(&inventory).await;
        Ok(HostRecord {
            name: self.state.host.clone(),
            reported: chrono::Utc::now(),
            cpus: capacity.map(|capacity| capacity.cpus),
            memory: capacity.map(|capacity| capacity.memory),
            promised_memory: inventory.promised_memory(),
            free_disk: self.state.disks.free().await.ok(),
            vms: u32::try_from(inventory.vms().count()).unwrap_or(u32::MAX),
            unclaimed,
            hypervisor: info.name.into(),
            emulation_reason: info.emulation_reason,
            version: env!("CARGO_PKG_VERSION").into(),
            removed: None,
        })
    }

    /// VMs with our mark that no row knows; none while the hypervisor does not answer, or a row cannot be read.
    async fn unclaimed(&self, inventory: &Inventory) -> Vec<UnclaimedVm> {
        if !inventory.knows_all_vms() {
            return Vec::new();
        }
        let marked = self.state.hypervisor.marked(&self.state.realm).await.unwrap_or_default();
        let is_known = |uuid: &VmUuid| inventory.vms().any(|vm| vm.identity.uuid == *uuid);
        let unclaimed = marked.into_iter().filter(|vm| !is_known(&vm.uuid));
        unclaimed.map(|vm| UnclaimedVm { name: vm.mark.vm, uuid: vm.uuid }).take(UNCLAIMED_MAX).collect()
    }

    async fn repair(&mut self, installation: &Installation) -> Result<(), String> {
        if self.repaired.is_some_and(|at| at.elapsed() < REPAIR_INTERVAL) {
            return Ok(());
        }
        let inventory = self.state.registry.snapshot().await.map_err(|failure| failure.to_string())?;
        let taken = installation.names.repair(&inventory).await.map_err(|error| with_causes(&error))?;
        if let Some(taken) = taken.first() {
            return Err(format!("{taken}: two VMs have one name; remove one of them"));
        }
        self.repaired = Some(Instant::now());
        Ok(())
    }
}

impl Worker for HostReporter {
    fn name(&self) -> &'static str {
        "report_host"
    }
    fn interval(&self) -> Duration {
        self.state.limits.host_report_interval
    }
    fn timeout(&self) -> Duration {
        ROUND_MAX
    }
    async fn round(&mut self) -> Result<(), String> {
        let state = Arc::clone(&self.state);
        let record = self.report().await?;
        let reported = state.installation.report(&record).await;
        // What the others report is worth knowing also while we cannot report ourselves.
        state.installation.refresh().await.map_err(|error| with_causes(&error))?;
        reported.map_err(|error| with_causes(&error))?;
        self.repair(&state.installation).await
    }
}
