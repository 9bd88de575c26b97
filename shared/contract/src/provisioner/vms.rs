//! Machines: what is wanted, what is seen, and what is done to them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::{NoRefusal, Owner, Timestamp, messages};
use crate::{ByteCount, DomainName, HostName, OperationId, SeedName, Service, VmName};

messages! { Owner::One(Service::Provisioner) =>
    durable CreateVm {
        "create_vm", from [People], refusal CreateVmRefused, about |it| it.definition.name.to_string()
    }
    schedulable StartVm { "start_vm", from [People], refusal VmRefused, about |it| it.vm.to_string() }
    schedulable StopVm { "stop_vm", from [People], refusal VmRefused, about |it| it.vm.to_string() }
    durable RemoveVm {
        "remove_vm", from [People, Service(Backup)], refusal VmRefused, about |it| it.vm.to_string()
    }
    request ListVms { "list_vms", from [People, Service(Proxy)], reply Vec<Vm>, refusal NoRefusal }
    request GetVm { "get_vm", from [People, Service(Backup)], reply Vm, refusal VmRefused }
    event VmChanged { "vm_changed", to [Proxy], about |it| it.name.as_str() }
}

/// What a person wants a machine to be: the TOML file, checked, with the scripts' texts inside. Fields that may hold
/// secrets are marked `x-secret` in the schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmDefinition {
    /// Its name.
    pub name: VmName,
    /// What it grows from.
    pub seed: SeedName,
    /// Virtual processors.
    pub cpu_count: u32,
    /// Memory.
    pub ram_size: ByteCount,
    /// The size of its disk; not smaller than the seed's.
    pub disk_size: ByteCount,
    /// The names under which the proxy leads to it.
    #[serde(default)]
    pub domains: Vec<DomainRoute>,
    /// Variables for its scripts.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    pub env: BTreeMap<String, String>,
    /// Scripts run over SSH after the first boot, in this order.
    #[serde(default)]
    pub install: Vec<Script>,
}

/// A domain and the port inside the machine it leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DomainRoute {
    /// The DNS name.
    pub domain: DomainName,
    /// The TCP port in the machine.
    pub port: u16,
}

/// A script that runs inside a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Script {
    /// Where it came from, for people (`install.sh`).
    pub name: String,
    /// Its text; its first line names the interpreter (`#!/bin/sh`).
    #[schemars(extend("x-secret" = true))]
    pub text: String,
}

/// How a machine is, as last observed; desired and observed are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// It is being made; no domain can be relied on yet.
    Creating,
    /// It runs, but does not answer yet.
    Starting,
    /// It runs and answered when its operation asked it to.
    Ready,
    /// It is being shut down.
    Stopping,
    /// It is off.
    Stopped,
    /// It is being removed.
    Removing,
    /// It should be here, but the hypervisor does not know it. Nothing is erased because of that.
    Missing,
}

/// A machine in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Vm {
    /// Its definition.
    pub definition: VmDefinition,
    /// Its UUID at the hypervisor.
    pub uuid: String,
    /// The address of its network card.
    pub mac: String,
    /// Which host it lives on.
    pub host: HostName,
    /// How it is.
    pub state: VmState,
    /// Its IP address, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The operation at work on it, if one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked_by: Option<OperationId>,
    /// When it was made.
    pub created: Timestamp,
    /// By what it runs: `libvirt`, or `simulated` where no machine really exists.
    pub hypervisor: String,
}

/// Makes a machine and starts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CreateVm {
    /// What it shall be.
    pub definition: VmDefinition,
    /// The same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Why a machine is not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum CreateVmRefused {
    /// There is one of that name.
    #[error("there is a vm {0} already")]
    NameTaken(VmName),
    /// There is no such seed.
    #[error("there is no seed {0}; add it with `loam seed add {0} --from FILE --sha256 DIGEST`")]
    UnknownSeed(SeedName),
    /// The disk could not hold the seed.
    #[error("disk_size {asked} is smaller than the seed's disk of {seed}")]
    DiskTooSmall {
        /// What was asked for.
        asked: ByteCount,
        /// What the seed needs.
        seed: ByteCount,
    },
    /// A domain leads elsewhere already.
    #[error("domain {domain} leads to vm {vm} already")]
    DomainTaken {
        /// The domain.
        domain: DomainName,
        /// The machine that has it.
        vm: VmName,
    },
    /// A value is out of its bounds.
    #[error("{field}: {reason}")]
    Invalid {
        /// The field of the definition.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

/// Starts a machine that is off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StartVm {
    /// Which.
    pub vm: VmName,
    /// The same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Shuts a machine down; pulls the plug after three minutes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StopVm {
    /// Which.
    pub vm: VmName,
    /// The same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Removes a machine with its disk. Its backups stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemoveVm {
    /// Which.
    pub vm: VmName,
    /// The same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Why nothing is done to a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum VmRefused {
    /// No such machine.
    #[error("there is no vm {0}")]
    Unknown(VmName),
    /// Another operation is at work on it.
    #[error("operation {by} is at work on vm {vm}; wait for it or cancel it")]
    Locked {
        /// The machine.
        vm: VmName,
        /// The operation.
        by: OperationId,
    },
    /// It is in that state already.
    #[error("vm {vm} is {state} already")]
    Already {
        /// The machine.
        vm: VmName,
        /// Its state in words.
        state: String,
    },
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

/// Asks which machines there are. Their definitions come without what scripts and variables hold: `GetVm` tells that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListVms {}

/// Asks for one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GetVm {
    /// Which.
    pub vm: VmName,
}

/// A machine came to be, changed or went away (then `vm` is absent). Its definition comes without scripts and variables.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VmChanged {
    /// Its name.
    pub name: VmName,
    /// How it is now; absent when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<Vm>,
}
