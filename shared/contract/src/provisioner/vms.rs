//! VMs: their state, and the commands that change them.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HostRefused, PauseReason, VmDefinition, VmSecrets, VmState};
use crate::message::{MessageOwner, NeverRefused, Timestamp, messages};
use crate::{ByteCount, DomainName, HostName, MacAddress, OperationId, SeedName, Service, VmName, VmUuid};

messages! { MessageOwner::One(Service::Provisioner) =>
    durable CreateVm {
        "create_vm", from [People], refusal CreateVmRefused, about vm |it| &it.definition.name
    }
    schedulable StartVm { "start_vm", from [People], refusal VmRefused, about vm |it| &it.vm }
    schedulable StopVm { "stop_vm", from [People], refusal VmRefused, about vm |it| &it.vm }
    durable RemoveVm {
        "remove_vm", from [People, Service(Backup)], refusal VmRefused, about vm |it| &it.vm
    }
    request ListVms { "list_vms", from [People, Service(Proxy)], reply Vec<Vm>, refusal NeverRefused }
    request GetVm { "get_vm", from [People, Service(Backup)], reply Vm, refusal VmRefused }
    request GetVmSecrets { "get_vm_secrets", from [People], reply VmSecrets, refusal VmRefused }
    event VmChanged { "vm_changed", to [Proxy], about |it| it.uuid.as_str() }
    event VmPaused { "vm_paused", to [], about |it| it.uuid.as_str() }
}

/// A VM as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Vm {
    /// Its definition, without variables and scripts.
    pub definition: VmDefinition,
    /// The names of its variables; in the reply to `GetVm` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<String>,
    /// The names of its scripts; in the reply to `GetVm` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scripts: Vec<String>,
    /// Its UUID: what libvirt knows it by.
    pub uuid: VmUuid,
    /// The MAC address of its network card.
    pub mac: MacAddress,
    /// The host that it is on.
    pub host: HostName,
    /// Its state.
    pub state: VmState,
    /// Why it is paused; only in the state `paused`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_reason: Option<PauseReason>,
    /// What keeps Loam from managing it as it is defined, and what to do about it: others have changed its disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// Its IP address, while it is on and has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The operation at work on it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_by: Option<OperationId>,
    /// When its creation began.
    pub created: Timestamp,
    /// What runs it: `libvirt`, or `simulated` where no VM really exists.
    pub hypervisor: String,
    /// Why it runs without KVM; absent where it runs with it, and where no VM really exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emulation_reason: Option<String>,
}

/// Creates a VM from a base image (seed) and starts it. Its output is the `Vm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CreateVm {
    /// The VM's definition.
    pub definition: VmDefinition,
    /// The host that it is created on; may be left out where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// Whether it is created though its host has less memory, free disk space or processors than it asks for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overcommit: bool,
    /// The id of the operation; the same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Why a VM is not created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum CreateVmRefused {
    /// The name is in use, on this host or another.
    #[error("there is a VM {0} already")]
    NameTaken(VmName),
    /// No host, or a wrong one, was named.
    #[error(transparent)]
    Host(HostRefused),
    /// There is no such seed.
    #[error("there is no seed {0}; add it with `loam seed add {0} --from FILE --sha256 DIGEST`")]
    UnknownSeed(SeedName),
    /// The disk is smaller than the seed's.
    #[error("disk_size {asked} is smaller than the seed's disk of {seed}")]
    DiskTooSmall {
        /// The size in the definition, in bytes.
        asked: ByteCount,
        /// The size of the seed's disk, in bytes.
        seed: ByteCount,
    },
    /// A domain is routed to another VM.
    #[error("domain {domain} is routed to VM {vm} already")]
    HttpDomainTaken {
        /// The domain.
        domain: DomainName,
        /// The VM that has it.
        vm: VmName,
    },
    /// A value is out of its bounds.
    #[error("{field}: {reason}")]
    InvalidField {
        /// The key of the definition.
        field: String,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
    /// It asks for more than its host has.
    #[error("{field}: {reason}; `--overcommit` allows it")]
    ExceedsHost {
        /// The key of the definition.
        field: String,
        /// What is asked for, and what there is.
        reason: String,
    },
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

/// Starts a VM that is off, or resumes one that is paused. Its output is the `StartedVm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StartVm {
    /// The VM's name.
    pub vm: VmName,
    /// The id of the operation; the same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Shuts a VM down: asks its guest, and ends it by force after three minutes. Its output is the `Vm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StopVm {
    /// The VM's name.
    pub vm: VmName,
    /// The id of the operation; the same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Removes a VM with its disks. Its backups stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemoveVm {
    /// The VM's name.
    pub vm: VmName,
    /// The id of the operation; the same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// What `StartVm` came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StartedVm {
    /// The VM as it is now.
    #[serde(flatten)]
    pub vm: Vm,
    /// Why it was paused until it was resumed; absent where it was not paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_pause_reason: Option<PauseReason>,
}

/// Why nothing is done to a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum VmRefused {
    /// No such VM.
    #[error("there is no VM {0}")]
    UnknownVm(VmName),
    /// Another operation is at work on it.
    #[error("operation {by} is at work on VM {vm}; wait for it or cancel it")]
    Locked {
        /// The VM.
        vm: VmName,
        /// The other operation.
        by: OperationId,
    },
    /// It is in that state already.
    #[error("VM {vm} is {state} already")]
    AlreadyInState {
        /// The VM.
        vm: VmName,
        /// Its state.
        state: VmState,
    },
    /// Others have changed its disks at the hypervisor: started as it is defined, it would not have what its guest wrote
    /// since.
    #[error("VM {vm} is left as it is: {changes}")]
    DisksChanged {
        /// The VM.
        vm: VmName,
        /// What they are now, and what to do.
        changes: String,
    },
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

/// Lists the VMs of all hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListVms {}

/// Gets one VM. `GetVmSecrets` has the values of its variables and the texts of its scripts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GetVm {
    /// The VM's name.
    pub vm: VmName,
}

/// Gets the variables and scripts of a VM. They are shown to the operator only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GetVmSecrets {
    /// The VM's name.
    pub vm: VmName,
}

/// A VM was created, changed or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmChanged {
    /// The host that it is on.
    pub host: HostName,
    /// The VM's UUID.
    pub uuid: VmUuid,
    /// The VM's name.
    pub name: VmName,
    /// The VM as it is now; absent when it is removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<Vm>,
}

/// A VM was paused, by a person or because its disks failed: an alert. `VmChanged` shows when it runs again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmPaused {
    /// The host that it is on.
    pub host: HostName,
    /// The VM's UUID.
    pub uuid: VmUuid,
    /// The VM's name.
    pub name: VmName,
    /// Why it was paused.
    pub reason: PauseReason,
}
