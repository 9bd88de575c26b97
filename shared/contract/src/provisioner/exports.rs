//! Reading the disks of a machine at one moment.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::VmDefinition;
use crate::message::{NoRefusal, Owner, messages};
use crate::{ByteCount, DiskName, HostName, OperationId, Service, VmName};

messages! { Owner::One(Service::Provisioner) =>
    request OpenDisks { "open_disks", from [Service(Backup)], reply OpenedDisks, refusal OpenDisksRefused }
    request RenewDisks { "renew_disks", from [Service(Backup)], reply Renewed, refusal NotOpen }
    request CloseDisks { "close_disks", from [Service(Backup)], reply Closed, refusal NoRefusal }
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
pub struct DiskExport {
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
    pub doors: Vec<DiskExport>,
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

/// The lease goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Renewed {
    /// Closed after this many seconds without another `RenewDisks`.
    pub lease_seconds: u32,
}

/// Closes disks. Closing what is closed already is a no-op.
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
