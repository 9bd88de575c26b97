//! A place for a machine that is brought back from a backup.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CreateVmRefused, VmDefinition};
use crate::message::{NoRefusal, Owner, messages};
use crate::{ByteCount, DiskName, HostName, OperationId, Service, VmName};

messages! { Owner::One(Service::Provisioner) =>
    request ReserveVm { "reserve_vm", from [Service(Backup)], reply ReservedVm, refusal CreateVmRefused }
    request ReleaseVm { "release_vm", from [Service(Backup)], reply Released, refusal NoRefusal }
    durable AdoptVm {
        "adopt_vm", from [Service(Backup)], refusal AdoptVmRefused, about |it| it.vm.to_string()
    }
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

/// Gives a reserved name back and removes what was written. Releasing what is not reserved is a no-op.
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

/// Makes a machine of a reserved name whose disks are written, and starts it; an operation of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AdoptVm {
    /// The reserved name.
    pub vm: VmName,
    /// For which operation it was reserved.
    pub reserved_by: OperationId,
    /// The id of the operation that this begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
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
