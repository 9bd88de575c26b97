//! Disk exports: the disks of a VM, readable over NBD at one point in time, under a lease.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{VmDefinition, VmState};
use crate::message::{MessageOwner, NeverRefused, messages};
use crate::{ByteCount, DiskName, HostName, OperationId, Service, Timestamp, VmName};

messages! { MessageOwner::One(Service::Provisioner) =>
    request OpenDisks { "open_disks", from [Service(Backup)], reply OpenedDisks, refusal OpenDisksRefused }
    request RenewDisks { "renew_disks", from [Service(Backup)], reply RenewedLease, refusal NotOpen }
    request CloseDisks { "close_disks", from [Service(Backup)], reply ClosedExports, refusal NeverRefused }
}

/// How consistent exported disks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// The guest agent had frozen the file systems.
    Filesystem,
    /// As after a power cut: the VM was on and not frozen, or had gone off by a crash or by force.
    Crash,
    /// The VM was off, and its guest had shut down in order.
    PoweredOff,
    /// A case of a later version: at least as after a power cut. It is never stored.
    #[serde(other)]
    Unknown,
}

/// Exports the disks of a VM for reading, as they are at one point in time, until they are closed or the lease
/// expires. The same operation sending it twice gets the same exports of the same point in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OpenDisks {
    /// The VM whose disks are exported.
    pub vm: VmName,
    /// The operation that reads them: the exports are renewed and closed by its id.
    pub operation_id: OperationId,
}

/// One disk, exported by an NBD server on the VM's host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiskExport {
    /// The disk's name in the VM (`vda`).
    pub disk: DiskName,
    /// The size that the guest sees, in bytes.
    pub size: ByteCount,
    /// The unix socket of the NBD server: an absolute path on the host.
    pub socket: PathBuf,
    /// The export's name at that server.
    pub export_name: String,
}

/// Disks that are exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OpenedDisks {
    /// The host that the sockets are on.
    pub host: HostName,
    /// One export for each disk, the disk to boot from first; from 1 to 16.
    pub exports: Vec<DiskExport>,
    /// The VM's definition at that point in time, with its scripts and variables.
    pub definition: VmDefinition,
    /// That point in time, by the host's clock.
    pub opened_at: Timestamp,
    /// How consistent the disks are.
    pub consistency: Consistency,
    /// The lease: the exports are closed after this many seconds without a `RenewDisks`.
    pub lease_seconds: u32,
}

/// Why disks are not exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum OpenDisksRefused {
    /// No such VM.
    #[error("there is no VM {0}")]
    UnknownVm(VmName),
    /// Its disks are exported for another operation, or another operation changes it.
    #[error("operation {by} is at work on VM {vm}")]
    Busy {
        /// The VM.
        vm: VmName,
        /// The other operation.
        by: OperationId,
    },
    /// It is in a state in which its disks hold nothing to rely on.
    #[error("the disks of VM {vm} cannot be read while it is {state}")]
    NotReadable {
        /// The VM.
        vm: VmName,
        /// Its state.
        state: VmState,
    },
    /// It is off, and others have changed its disks at the hypervisor: the files that are known do not hold what its guest
    /// wrote last.
    #[error("the disks of VM {vm} are not read: {changes}")]
    DisksChanged {
        /// The VM.
        vm: VmName,
        /// What they are now, and what to do.
        changes: String,
    },
}

/// Where the provisioner passes connections to exports, below the state folder: the reader's user cannot open the sockets
/// of NBD servers itself.
pub const DESCRIPTOR_SOCKET: &str = "run/descriptors.sock";

/// Asked at [`DESCRIPTOR_SOCKET`], not on the bus: a connection to the NBD server of an open export. What is passed is the
/// connected socket, before the handshake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectToExport {
    /// The operation that the disks were opened for.
    pub operation_id: OperationId,
    /// The export's name at its server.
    pub export_name: String,
}

/// Renews the lease of an operation's exports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RenewDisks {
    /// The operation that they were opened for.
    pub operation_id: OperationId,
}

/// No disks are exported for that operation, or not any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("no disks are exported for operation {operation_id}")]
pub struct NotOpen {
    /// The operation that was named.
    pub operation_id: OperationId,
}

/// The lease was renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RenewedLease {
    /// The exports are closed after this many seconds without another `RenewDisks`.
    pub lease_seconds: u32,
}

/// Closes an operation's exports; a no-op where they are closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CloseDisks {
    /// The operation that they were opened for.
    pub operation_id: OperationId,
}

/// The exports are closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ClosedExports {
    /// Whether they were open until now.
    pub was_open: bool,
}
