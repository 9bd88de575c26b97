//! Restores: a name and disk paths reserved for a VM that is restored from a backup.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CreateVmRefused, VmDefinition};
use crate::message::{MessageOwner, NeverRefused, messages};
use crate::{ByteCount, DiskName, HostName, OperationId, Service, VmName};

messages! { MessageOwner::One(Service::Provisioner) =>
    request ReserveVmName { "reserve_vm_name", from [Service(Backup)], reply ReservedVm, refusal CreateVmRefused }
    request ReleaseVmName { "release_vm_name", from [Service(Backup)], reply ReleasedVmName, refusal NeverRefused }
    durable CreateReservedVm {
        "create_reserved_vm", from [Service(Backup)], refusal CreateReservedVmRefused, about vm |it| &it.vm
    }
}

/// Reserves a name and disk paths for a VM that is to be restored. The same operation sending it twice gets the same
/// reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReserveVmName {
    /// The VM's definition, under its new name.
    pub definition: VmDefinition,
    /// Its disks, the one to boot from first; from 1 to 16.
    pub disks: Vec<DiskSize>,
    /// Whether it is reserved though its host has less memory, free disk space or processors than it asks for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overcommit: bool,
    /// The operation that restores it.
    pub operation_id: OperationId,
}

/// A disk's name and size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskSize {
    /// The disk's name in the VM (`vda`).
    pub disk: DiskName,
    /// The size that the guest sees, in bytes.
    pub size: ByteCount,
}

/// What was reserved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReservedVm {
    /// The host that the files are to be written on.
    pub host: HostName,
    /// Where each disk is to be written, as a raw image.
    pub disks: Vec<DiskPath>,
}

/// Where a disk is to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskPath {
    /// The disk's name in the VM (`vda`).
    pub disk: DiskName,
    /// An absolute path on the host; the file does not exist yet.
    pub path: PathBuf,
}

/// Releases a reserved name and removes what was written; a no-op where it is not reserved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseVmName {
    /// The reserved name.
    pub vm: VmName,
    /// The operation that it was reserved for.
    pub operation_id: OperationId,
}

/// The name is free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleasedVmName {
    /// Whether it was reserved until now.
    pub was_reserved: bool,
}

/// Creates a VM from a reserved name whose disks are written, and starts it. Its output is the `Vm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CreateReservedVm {
    /// The reserved name.
    pub vm: VmName,
    /// The operation that it was reserved for.
    pub reserved_by: OperationId,
    /// The id of the operation; the same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Why a reserved VM is not created.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum CreateReservedVmRefused {
    /// The name is not reserved for that operation.
    #[error("VM {vm} is not reserved for operation {reserved_by}")]
    NotReserved {
        /// The VM.
        vm: VmName,
        /// The operation that was named.
        reserved_by: OperationId,
    },
    /// A disk's file does not exist.
    #[error("disk {0} has not been written")]
    DiskMissing(DiskName),
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}
