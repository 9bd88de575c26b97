//! Messages of the backup service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::{NoRefusal, Owner, Timestamp, messages};
use crate::provisioner::Consistency;
use crate::{BackupId, BackupRef, ByteCount, DiskName, OperationId, ScheduleId, Service, VmName};

messages! { Owner::One(Service::Backup) =>
    schedulable StartBackup {
        "start_backup", from [People], refusal StartBackupRefused, about |it| it.vm.to_string()
    }
    durable RestoreBackup {
        "restore_backup", from [People], refusal RestoreBackupRefused, about |it| it.as_vm.to_string()
    }
    schedulable VerifyBackup {
        "verify_backup", from [People], refusal VerifyBackupRefused, about |it| it.backup.to_string()
    }
    schedulable VerifyRepository {
        "verify_repository", from [People], refusal RepositoryRefused, about |_it| REPOSITORY.into()
    }
    schedulable CollectRepository {
        "collect_repository", from [People], refusal RepositoryRefused, about |_it| REPOSITORY.into()
    }
    schedulable ApplyRetention {
        "apply_retention", from [People], refusal ApplyRetentionRefused, about |_it| REPOSITORY.into()
    }
    request ListBackups { "list_backups", from [People], reply Vec<Backup>, refusal NoRefusal }
    event BackupSealed { "backup_sealed", to [], about |it| it.0.vm.as_str() }
}

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

/// Reads a backup back from the store and checks every byte of it; an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyBackup {
    /// Which backup.
    pub backup: BackupRef,
    /// The same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Why a backup is not verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum VerifyBackupRefused {
    /// No such backup.
    #[error("there is no backup {0}; `loam backup list` lists them")]
    Unknown(BackupRef),
    /// More than one backup begins so.
    #[error("{given} may be any of {}", .candidates.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was given.
        given: BackupRef,
        /// What it may mean.
        candidates: Vec<BackupId>,
    },
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

/// What operations on the whole repository are about.
pub const REPOSITORY: &str = "repository";

/// Reads packs back from the store and checks every byte of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyRepository {
    /// At most this many bytes, those first that were not verified for the longest time; everything where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<ByteCount>,
    /// The same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Deletes what no snapshot and no running backup needs (restic calls it prune).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CollectRepository {
    /// The same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Why an operation on the repository does not begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum RepositoryRefused {
    /// One of the same kind is under way.
    #[error("operation {0} does this already; wait for it or cancel it")]
    UnderWay(OperationId),
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

/// Forgets the backups that no rule keeps. Rules are applied to each VM by itself; what they free is deleted by
/// `CollectRepository`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApplyRetention {
    /// Which backups are kept.
    pub keep: RetentionRules,
    /// Only the backups of this VM; those of every VM where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmName>,
    /// The same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// How many backups of a VM are kept; a backup that any rule keeps is kept. Days, weeks, months and years are those of
/// UTC, and the newest backup of each counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionRules {
    /// The newest ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// One an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hourly: Option<u32>,
    /// One a day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<u32>,
    /// One a week (ISO 8601).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly: Option<u32>,
    /// One a month.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly: Option<u32>,
    /// One a year.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yearly: Option<u32>,
}

/// Why a retention run does not begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ApplyRetentionRefused {
    /// The rules would keep nothing, or cannot be followed.
    #[error("the retention rules cannot be applied: {0}")]
    BadRules(String),
    /// One is under way.
    #[error("operation {0} applies retention already; wait for it or cancel it")]
    UnderWay(OperationId),
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

/// A committed backup.
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

/// A backup is complete and safe in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct BackupSealed(pub Backup);
