//! Words of the provisioner: seeds, virtual machines, and the doors it opens to their disks.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::operation::Begun;
use crate::word::{Audience, Event, Nothing, Owner, Request, Timestamp};
use crate::{ByteCount, DiskName, DomainName, HostName, OperationId, SeedName, Service, VmName};

const OWNER: Owner = Owner::One(Service::Provisioner);
const BACKUP_ONLY: Audience = Audience::Services(&[Service::Backup]);

/// A cloud image that machines grow from: a read-only disk, known by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seed {
    /// Its name.
    pub name: SeedName,
    /// SHA-256 of the image as it was given, 64 hexadecimal digits.
    pub sha256: String,
    /// The size of the disk it holds.
    pub virtual_size: ByteCount,
    /// What it takes on the host.
    pub stored_size: ByteCount,
    /// Since when it is here.
    pub added: Timestamp,
}

/// Makes a seed of an ordinary cloud image (qcow2 or raw).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddSeed {
    /// Its name.
    pub name: SeedName,
    /// An absolute path on the provisioner's host, or an http(s) URL.
    pub from: String,
    /// What the image must hash to, 64 hexadecimal digits.
    pub sha256: String,
    /// The same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Why a seed is not added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum AddSeedRefused {
    /// The digest is not one.
    #[error("{0:?} is not a SHA-256: it has 64 hexadecimal digits")]
    NotADigest(String),
    /// The source is neither an absolute path nor a URL.
    #[error("{0:?} is neither an absolute path nor an http(s) URL")]
    NotASource(String),
    /// Another image has the name.
    #[error("seed {name} is there already with SHA-256 {sha256}; remove it first or choose another name")]
    NameTaken {
        /// The name.
        name: SeedName,
        /// The digest of the image that has it.
        sha256: String,
    },
    /// Another operation is at work on it.
    #[error("operation {0} is at work on this seed")]
    Busy(OperationId),
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

impl Request for AddSeed {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "add_seed";
    type Reply = Begun;
    type Refusal = AddSeedRefused;
}

/// Asks which seeds there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListSeeds {}

impl Request for ListSeeds {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "list_seeds";
    type Reply = Vec<Seed>;
    type Refusal = Nothing;
}

/// Removes a seed that no machine grows from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemoveSeed {
    /// Which.
    pub name: SeedName,
}

/// Why a seed is not removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum RemoveSeedRefused {
    /// No such seed.
    #[error("there is no seed {0}")]
    Unknown(SeedName),
    /// Machines have it as the base of their disks.
    #[error("seed {name} is the base of {}", .vms.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", "))]
    InUse {
        /// The seed.
        name: SeedName,
        /// The machines.
        vms: Vec<VmName>,
    },
}

impl Request for RemoveSeed {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "remove_seed";
    type Reply = Seed;
    type Refusal = RemoveSeedRefused;
}

/// What a person wants a machine to be: the TOML file, checked, with the scripts' texts inside.
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

impl Request for CreateVm {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "create_vm";
    type Reply = Begun;
    type Refusal = CreateVmRefused;
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

impl Request for StartVm {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "start_vm";
    type Reply = Begun;
    type Refusal = VmRefused;
}
impl Request for StopVm {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "stop_vm";
    type Reply = Begun;
    type Refusal = VmRefused;
}
impl Request for RemoveVm {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "remove_vm";
    type Reply = Begun;
    type Refusal = VmRefused;
}

/// Asks which machines there are. Their definitions come without what scripts and variables hold: `GetVm` tells that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListVms {}

impl Request for ListVms {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "list_vms";
    type Reply = Vec<Vm>;
    type Refusal = Nothing;
}

/// Asks for one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GetVm {
    /// Which.
    pub vm: VmName,
}

impl Request for GetVm {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "get_vm";
    type Reply = Vm;
    type Refusal = VmRefused;
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

impl Event for VmChanged {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "vm_changed";
    fn about(&self) -> &str {
        self.name.as_str()
    }
}

/// How trustworthy the moment is at which disks were opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// The guest's file systems were frozen by its agent.
    Filesystem,
    /// As after a power cut.
    Crash,
    /// The machine was off.
    Off,
}

/// Opens the disks of a machine for reading, at one moment, until they are closed or the lease runs out.
/// The same operation asking twice gets the same doors, at the same moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OpenDisks {
    /// Whose disks.
    pub vm: VmName,
    /// For which operation.
    pub operation_id: OperationId,
}

/// A door to one disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskDoor {
    /// The disk's name.
    pub disk: DiskName,
    /// Its size.
    pub size: ByteCount,
    /// The unix socket of an NBD server on the host.
    pub socket: PathBuf,
    /// The export's name at that server.
    pub export: String,
}

/// Disks that stand open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OpenedDisks {
    /// On which host the sockets are.
    pub host: HostName,
    /// One door a disk.
    pub doors: Vec<DiskDoor>,
    /// The machine's definition at that moment.
    pub definition: VmDefinition,
    /// How trustworthy the moment is.
    pub consistency: Consistency,
    /// The lease: closed after this many seconds without a `RenewDisks`.
    pub lease_seconds: u32,
}

/// Why disks are not opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum OpenDisksRefused {
    /// No such machine.
    #[error("there is no vm {0}")]
    Unknown(VmName),
    /// Its disks stand open for another operation, or it is being changed.
    #[error("operation {by} is at work on vm {vm}")]
    Busy {
        /// The machine.
        vm: VmName,
        /// The operation.
        by: OperationId,
    },
    /// It is in a state in which its disks mean nothing.
    #[error("the disks of vm {vm} cannot be read while it is {state}")]
    NotReadable {
        /// The machine.
        vm: VmName,
        /// Its state in words.
        state: String,
    },
}

impl Request for OpenDisks {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "open_disks";
    const AUDIENCE: Audience = BACKUP_ONLY;
    type Reply = OpenedDisks;
    type Refusal = OpenDisksRefused;
}

/// Keeps disks open for another lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RenewDisks {
    /// For which operation they stand open.
    pub operation_id: OperationId,
}

/// The disks do not stand open (any more) for that operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("no disks stand open for operation {operation_id}")]
pub struct NotOpen {
    /// The operation.
    pub operation_id: OperationId,
}

impl Request for RenewDisks {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "renew_disks";
    const AUDIENCE: Audience = BACKUP_ONLY;
    type Reply = Renewed;
    type Refusal = NotOpen;
}

/// The lease goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Renewed {
    /// Closed after this many seconds without another `RenewDisks`.
    pub lease_seconds: u32,
}

/// Closes disks. Closing what is closed already is calm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CloseDisks {
    /// For which operation they stand open.
    pub operation_id: OperationId,
}

/// They are closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Closed {
    /// Whether they stood open until now.
    pub stood_open: bool,
}

impl Request for CloseDisks {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "close_disks";
    const AUDIENCE: Audience = BACKUP_ONLY;
    type Reply = Closed;
    type Refusal = Nothing;
}

/// Reserves a name and empty disks for a machine that is to be restored. The same operation asking twice gets the
/// same answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReserveVm {
    /// What it shall be, under its new name.
    pub definition: VmDefinition,
    /// Its disks.
    pub disks: Vec<DiskSize>,
    /// For which operation.
    pub operation_id: OperationId,
}

/// A disk's name and size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskSize {
    /// Its name.
    pub disk: DiskName,
    /// Its size.
    pub size: ByteCount,
}

/// A reserved place for a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReservedVm {
    /// On which host the files are to be.
    pub host: HostName,
    /// Where each disk is to be written, as a raw image.
    pub disks: Vec<DiskPlace>,
}

/// Where a disk is to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskPlace {
    /// The disk.
    pub disk: DiskName,
    /// A path on the host; the file does not exist yet.
    pub path: PathBuf,
}

impl Request for ReserveVm {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "reserve_vm";
    const AUDIENCE: Audience = BACKUP_ONLY;
    type Reply = ReservedVm;
    type Refusal = CreateVmRefused;
}

/// Gives a reserved name back and removes what was written. Releasing what is not reserved is calm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseVm {
    /// The name.
    pub vm: VmName,
    /// For which operation it was reserved.
    pub operation_id: OperationId,
}

/// It is released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Released {
    /// Whether it was reserved until now.
    pub was_reserved: bool,
}

impl Request for ReleaseVm {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "release_vm";
    const AUDIENCE: Audience = BACKUP_ONLY;
    type Reply = Released;
    type Refusal = Nothing;
}

/// Makes a machine of a reserved name whose disks are written, and starts it; an operation of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdoptVm {
    /// The reserved name.
    pub vm: VmName,
    /// For which operation it was reserved.
    pub reserved_by: OperationId,
    /// The id of the operation that this begins.
    pub operation_id: OperationId,
}

/// Why a reserved machine is not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum AdoptVmRefused {
    /// The name is not reserved for that operation.
    #[error("vm {vm} is not reserved for operation {reserved_by}")]
    NotReserved {
        /// The machine.
        vm: VmName,
        /// The operation.
        reserved_by: OperationId,
    },
    /// A disk is not there.
    #[error("disk {0} has not been written")]
    DiskMissing(DiskName),
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

impl Request for AdoptVm {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "adopt_vm";
    const AUDIENCE: Audience = BACKUP_ONLY;
    type Reply = Begun;
    type Refusal = AdoptVmRefused;
}
