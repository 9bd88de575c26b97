//! Words of the backup service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::operation::Begun;
use crate::provisioner::Consistency;
use crate::word::{Event, Nothing, Owner, Request, Timestamp};
use crate::{BackupId, BackupRef, ByteCount, DiskName, OperationId, ScheduleId, Service, VmName};

const OWNER: Owner = Owner::One(Service::Backup);

/// Backs a machine up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StartBackup {
    /// Which.
    pub vm: VmName,
    /// The schedule that asks, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleId>,
    /// The same id twice is the same command. The backup will carry this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Why a backup is not begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum StartBackupRefused {
    /// No such machine.
    #[error("there is no vm {0}")]
    Unknown(VmName),
    /// A backup of it is under way.
    #[error("operation {by} backs up vm {vm} already")]
    UnderWay {
        /// The machine.
        vm: VmName,
        /// The operation.
        by: OperationId,
    },
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

impl Request for StartBackup {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "start_backup";
    type Reply = Begun;
    type Refusal = StartBackupRefused;
}

/// Makes a second machine from a backup, with a new name, MAC and UUID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RestoreBackup {
    /// Which backup.
    pub backup: BackupRef,
    /// The new machine's name.
    pub as_vm: VmName,
    /// The same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Why a backup is not restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum RestoreBackupRefused {
    /// No such backup.
    #[error("there is no backup {0}")]
    Unknown(BackupRef),
    /// More than one backup begins so.
    #[error("{given} may be any of {}", .candidates.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was given.
        given: BackupRef,
        /// What it may mean.
        candidates: Vec<BackupId>,
    },
    /// There is a machine of that name.
    #[error("there is a vm {0} already; choose another name")]
    NameTaken(VmName),
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

impl Request for RestoreBackup {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "restore_backup";
    type Reply = Begun;
    type Refusal = RestoreBackupRefused;
}

/// Reads a backup back from the store and checks every byte of it; an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyBackup {
    /// Which backup.
    pub backup: BackupRef,
    /// The same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

impl Request for VerifyBackup {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "verify_backup";
    type Reply = Begun;
    type Refusal = RestoreBackupRefused;
}

/// A sealed backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backup {
    /// Its id.
    pub id: BackupId,
    /// The machine.
    pub vm: VmName,
    /// The moment that it shows.
    pub taken: Timestamp,
    /// How trustworthy that moment is.
    pub consistency: Consistency,
    /// Its disks.
    pub disks: Vec<BackedUpDisk>,
    /// The schedule that asked for it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleId>,
    /// Bytes read from the machine.
    pub bytes_read: ByteCount,
    /// Bytes that were new to the store, before compression.
    pub bytes_new: ByteCount,
    /// Bytes written to the store.
    pub bytes_stored: ByteCount,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// A disk inside a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BackedUpDisk {
    /// Its name.
    pub disk: DiskName,
    /// Its size.
    pub size: ByteCount,
}

/// Asks which backups there are, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListBackups {
    /// Only those of this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmName>,
}

impl Request for ListBackups {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "list_backups";
    type Reply = Vec<Backup>;
    type Refusal = Nothing;
}

/// A backup is complete and safe in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct BackupSealed(pub Backup);

impl Event for BackupSealed {
    const OWNER: Owner = OWNER;
    const NAME: &'static str = "backup_sealed";
    fn about(&self) -> &str {
        self.0.vm.as_str()
    }
}
