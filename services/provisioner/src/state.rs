//! What request handlers, sagas and workers share: the records, the ports, and the limits.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bus::Bus;
use contract::message::with_causes;
use contract::{ByteCount, HostName, Realm, VmUuid};
use encryption::RowKeys;
use provisioner_domain::VmRecord;
use provisioner_domain::export::LEASE;

use crate::actors::{Registry, RegistryHandle};
use crate::ports::{
    Disks, GuestShell, Hypervisor, HypervisorError, HypervisorErrorKind, Ports, disk_changes,
};
use crate::vm_spec::disks_of;

/// What handlers, sagas and workers share.
pub struct ServiceState {
    /// The records of VMs and seeds.
    pub registry: RegistryHandle,
    /// Runs VMs.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Keeps disk images.
    pub disks: Arc<dyn Disks>,
    /// Runs scripts inside VMs.
    pub shell: Arc<dyn GuestShell>,
    /// The host that we manage VMs on.
    pub host: HostName,
    /// The realm, for the mark on every VM.
    pub realm: Realm,
    /// How long to wait, and how much room to keep.
    pub limits: Limits,
    /// What rows are encrypted with.
    pub keys: Arc<RowKeys>,
}

impl ServiceState {
    /// Reads the records and starts the registry on the current arbiter.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub async fn open(
        bus: &Bus,
        host: HostName,
        ports: Ports,
        limits: Limits,
        keys: RowKeys,
    ) -> anyhow::Result<Arc<Self>> {
        let keys = Arc::new(keys);
        let registry = Registry::open(bus.clone(), host.clone(), ports.hypervisor.info(), Arc::clone(&keys))
            .await
            .context("reading the tables of VMs and seeds")?;
        let Ports { hypervisor, disks, shell } = ports;
        let registry = RegistryHandle::start(registry);
        let realm = bus.realm().clone();
        Ok(Arc::new(ServiceState { registry, hypervisor, disks, shell, host, realm, limits, keys }))
    }

    /// What others have changed about a VM's disks at the hypervisor, in words; `None` where nothing, or it does not know
    /// the VM.
    ///
    /// # Errors
    /// When the hypervisor does not answer.
    pub async fn disk_changes(&self, record: &VmRecord) -> Result<Option<String>, HypervisorError> {
        let (uuid, defined) = (&record.identity.uuid, disks_of(record, self.disks.as_ref()));
        match self.hypervisor.disks(uuid).await {
            Ok(found) => Ok(disk_changes(uuid, &defined, &found)),
            Err(error) if error.kind == HypervisorErrorKind::UnknownVm => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Resumes a paused VM. A guest that was paused while its file systems were being frozen freezes them when it goes on,
    /// so they are thawed; a no-op where they are not frozen, and where no agent runs.
    ///
    /// # Errors
    /// When the hypervisor does not resume it.
    pub async fn resume(&self, uuid: &VmUuid) -> Result<(), HypervisorError> {
        self.hypervisor.resume(uuid).await?;
        if let Err(error) = self.hypervisor.thaw(uuid).await {
            tracing::debug!(%uuid, error = with_causes(&error), "its file systems were not thawed");
        }
        Ok(())
    }
}

/// How long to wait for guests and leases, and how much room disks need.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From a VM's start until its guest answers.
    pub vm_ready_max: Duration,
    /// Between two checks of a guest that boots or shuts down.
    pub guest_poll_interval: Duration,
    /// How long the agent has to shut its guest down before the power button is tried.
    pub agent_shutdown_max: Duration,
    /// How long the power button has before the VM is ended by force.
    pub acpi_shutdown_max: Duration,
    /// How long a guest may take to freeze its file systems before its disks are read as they are.
    pub freeze_timeout: Duration,
    /// How long an export stays open without being renewed.
    pub export_lease: Duration,
    /// Between two rounds of the reconciler.
    pub reconcile_interval: Duration,
    /// How long the hypervisor may be silent before the states of VMs count as unknown: a restart of libvirtd takes a few
    /// seconds, in which VMs run on.
    pub unknown_after: Duration,
    /// With less free space for disks the service is degraded: a guest whose disk cannot grow is paused.
    pub free_space_low: ByteCount,
    /// With this much free space VMs that were paused for lack of it are resumed.
    pub free_space_to_resume: ByteCount,
}

impl Limits {
    /// The limits outside of tests: three minutes to shut down, and as long to boot as the settings say.
    pub fn standard(ready_max: Duration) -> Limits {
        Limits {
            vm_ready_max: ready_max,
            guest_poll_interval: Duration::from_millis(500),
            agent_shutdown_max: Duration::from_secs(90),
            acpi_shutdown_max: Duration::from_secs(90),
            // Above the hypervisor's own deadline for an agent: a freeze must not come after its thaw.
            freeze_timeout: Duration::from_secs(40),
            export_lease: LEASE,
            reconcile_interval: Duration::from_secs(10),
            unknown_after: Duration::from_secs(15),
            free_space_low: ByteCount::gib(1),
            // Twice as much: a guest that goes on writing must not be paused again at once.
            free_space_to_resume: ByteCount::gib(2),
        }
    }
}
