//! What request handlers, sagas and workers share: the records, the ports, and the limits.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, ErrorReply};
use contract::message::{Failure, with_causes};
use contract::{ByteCount, HostName, OperationId, Realm, VmName, VmUuid};
use encryption::RowKeys;
use provisioner_domain::export::LEASE;
use provisioner_domain::{VmPhase, VmRecord};

use crate::actors::{Registry, RegistryHandle};
use crate::installation::Installation;
use crate::ports::{
    Disks, GuestShell, Hypervisor, HypervisorError, HypervisorErrorKind, Ports, disk_changes,
};
use crate::vm_spec::disks_of;

/// What handlers, sagas and workers share.
pub struct ServiceState {
    /// For events.
    pub bus: Bus,
    /// The records of this host's VMs and seeds.
    pub registry: RegistryHandle,
    /// What belongs to all hosts.
    pub installation: Installation,
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
        let installation = Installation::new(bus, host.clone());
        let info = ports.hypervisor.info();
        let registry = Registry::open(bus.clone(), &installation, host.clone(), info, Arc::clone(&keys))
            .await
            .context("reading the tables of VMs and seeds")?;
        let Ports { hypervisor, disks, shell } = ports;
        let registry = RegistryHandle::start(registry);
        let realm = bus.realm().clone();
        let bus = bus.clone();
        Ok(Arc::new(ServiceState {
            bus,
            registry,
            installation,
            hypervisor,
            disks,
            shell,
            host,
            realm,
            limits,
            keys,
        }))
    }

    /// The host that a VM is on, by its name; none where there is no such VM.
    ///
    /// # Errors
    /// When its row cannot be read, or the tables do not answer.
    pub async fn host_of(&self, vm: &VmName) -> Result<Option<HostName>, Failure> {
        if self.registry.find(vm).await?.is_some() {
            return Ok(Some(self.host.clone()));
        }
        self.installation.names.host_of(vm).await.map_err(|error| error.to_failure())
    }

    /// Frees a name that an operation reserved, and removes the files of the VM; whether it was reserved until now.
    ///
    /// # Errors
    /// When files or row cannot be removed.
    pub async fn release(&self, vm: &VmName, by: &OperationId) -> Result<bool, Failure> {
        let is_reserved =
            |record: VmRecord| matches!(record.phase, VmPhase::Reserved { by: other } if other == *by);
        if !self.registry.find(vm).await?.is_some_and(is_reserved) {
            return Ok(false);
        }
        // The files first: until the name is free the folder cannot be another VM's.
        self.disks.erase(vm).await.map_err(|error| Failure::unavailable(&error))?;
        match self.registry.forget(vm, by).await {
            Ok(was_reserved) => Ok(was_reserved),
            Err(ErrorReply::Refused(_)) => Ok(false),
            Err(ErrorReply::Failed(failure)) => Err(failure),
        }
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
    /// Between two reports of this host to the others.
    pub host_report_interval: Duration,
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
            host_report_interval: Duration::from_secs(10),
            unknown_after: Duration::from_secs(15),
            free_space_low: ByteCount::gib(1),
            // Twice as much: a guest that goes on writing must not be paused again at once.
            free_space_to_resume: ByteCount::gib(2),
        }
    }
}
