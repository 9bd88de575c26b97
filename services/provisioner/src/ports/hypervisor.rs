//! The hypervisor: what runs VMs.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use contract::{DiskName, MacAddress, Realm, VmUuid};
use provisioner_domain::{HostCapacity, HypervisorInfo, PowerState};

use super::BoxError;
use super::vm_spec::{Disk, FoundDisk, VmMark, VmSpec};

/// A VM that carries our mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedVm {
    /// Its UUID.
    pub uuid: VmUuid,
    /// What it is doing.
    pub power: PowerState,
    /// Its mark.
    pub mark: VmMark,
    /// Its disks as they are defined now.
    pub disks: Vec<FoundDisk>,
}

/// How to ask a guest to shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestShutdownMethod {
    /// Through its agent.
    Agent,
    /// By the ACPI power button.
    Acpi,
}

/// A disk that is exported for reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The disk.
    pub disk: DiskName,
    /// The unix socket of an NBD server.
    pub socket: PathBuf,
    /// The export's name there.
    pub name: String,
}

/// Why the hypervisor did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt}")]
pub struct HypervisorError {
    /// What kind of failure.
    pub kind: HypervisorErrorKind,
    /// What was attempted.
    pub attempt: String,
    /// The cause.
    #[source]
    pub source: BoxError,
}

/// Kinds of failure that a caller can act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HypervisorErrorKind {
    /// It does not answer, or not now: the same call may succeed later.
    Unavailable,
    /// It knows no such VM.
    UnknownVm,
    /// The guest agent does not answer.
    AgentSilent,
    /// A disk of the VM is not the one that was defined: others have changed it, and may have written elsewhere since.
    DisksChanged,
    /// It refuses, however often it is asked.
    Failed,
}

impl HypervisorError {
    /// A failure of an attempt, with its cause.
    pub fn new(kind: HypervisorErrorKind, attempt: impl Into<String>, cause: impl Into<BoxError>) -> Self {
        HypervisorError { kind, attempt: attempt.into(), source: cause.into() }
    }

    /// Whether the same call may succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, HypervisorErrorKind::Unavailable | HypervisorErrorKind::AgentSilent)
    }
}

/// Called when VMs may have changed; it does not block.
pub type ChangeCallback = Arc<dyn Fn() + Send + Sync>;

/// Runs VMs.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// What it is, and whether VMs run with KVM.
    fn info(&self) -> HypervisorInfo;
    /// Prepares what VMs need from their host, such as a network. Idempotent.
    async fn prepare(&self) -> Result<(), HypervisorError>;
    /// Calls `changed` from now on when VMs may have changed by themselves or by others, and when the hypervisor has gone
    /// away or is back. It may miss a change: whoever relies on all of them asks from time to time, too.
    fn watch(&self, changed: ChangeCallback) -> Result<(), HypervisorError>;

    /// What its host has.
    async fn capacity(&self) -> Result<HostCapacity, HypervisorError>;

    /// Whether it answers.
    async fn check(&self) -> Result<(), HypervisorError>;
    /// Defines a VM. One that is defined is kept as it is, with whatever others have changed in it; an error of the kind
    /// `DisksChanged` where that is a disk.
    async fn define(&self, spec: &VmSpec) -> Result<(), HypervisorError>;
    /// Starts a VM; a no-op where it is on.
    async fn start(&self, uuid: &VmUuid) -> Result<(), HypervisorError>;
    /// Lets a paused VM run again; a no-op where it runs. After a pause for lack of space the failed write is repeated.
    async fn resume(&self, uuid: &VmUuid) -> Result<(), HypervisorError>;
    /// Stops the processors of a running VM and keeps its memory; a no-op where it is paused.
    async fn suspend(&self, uuid: &VmUuid) -> Result<(), HypervisorError>;
    /// Asks the guest to shut down and returns at once; a no-op where it is off.
    async fn request_shutdown(&self, uuid: &VmUuid, mode: GuestShutdownMethod)
    -> Result<(), HypervisorError>;
    /// Ends the VM without asking the guest; a no-op where it is off or unknown.
    async fn destroy(&self, uuid: &VmUuid) -> Result<(), HypervisorError>;
    /// Removes the definition of a VM that is off; a no-op where it is unknown.
    async fn undefine(&self, uuid: &VmUuid) -> Result<(), HypervisorError>;
    /// The definition of a VM in the hypervisor's own words, without secrets; `None` where it is not defined.
    async fn definition(&self, uuid: &VmUuid) -> Result<Option<String>, HypervisorError>;

    /// Defines a VM again from its definition; a no-op where it is defined.
    async fn restore_definition(&self, uuid: &VmUuid, definition: &str) -> Result<(), HypervisorError>;

    /// The disks of a VM as they are defined now.
    async fn disks(&self, uuid: &VmUuid) -> Result<Vec<FoundDisk>, HypervisorError>;

    /// What a VM is doing.
    async fn power(&self, uuid: &VmUuid) -> Result<PowerState, HypervisorError>;
    /// Whether a VM that is off went off in order: its guest shut down, and had written its disks. `None` where it is not
    /// off, and where the hypervisor cannot tell, as after a restart of the host.
    async fn went_off_in_order(&self, uuid: &VmUuid) -> Result<Option<bool>, HypervisorError>;

    /// The address of a VM's card, once it has one.
    async fn address(&self, uuid: &VmUuid, mac: &MacAddress) -> Result<Option<IpAddr>, HypervisorError>;
    /// Whether the guest agent answers.
    async fn agent_answers(&self, uuid: &VmUuid) -> Result<bool, HypervisorError>;
    /// Freezes the guest's file systems. After any error, thaw.
    async fn freeze(&self, uuid: &VmUuid) -> Result<(), HypervisorError>;
    /// Thaws them; a no-op where they are not frozen.
    async fn thaw(&self, uuid: &VmUuid) -> Result<(), HypervisorError>;
    /// Exports the disks of a VM that is on, as they are at one point in time, at unix sockets in an existing folder.
    /// The hypervisor may keep old blocks there, too, that the guest overwrites meanwhile.
    async fn open_exports(
        &self,
        uuid: &VmUuid,
        disks: &[Disk],
        folder: &Path,
    ) -> Result<Vec<Export>, HypervisorError>;
    /// Closes the exports in that folder; a no-op where there are none, or the VM is gone.
    async fn close_exports(&self, uuid: &VmUuid, folder: &Path) -> Result<(), HypervisorError>;
    /// All VMs that carry our mark and this realm's name.
    async fn marked(&self, realm: &Realm) -> Result<Vec<MarkedVm>, HypervisorError>;
}
