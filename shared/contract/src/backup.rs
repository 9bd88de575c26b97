//! Messages of the backup service: what is backed up, restored, verified, forgotten and collected.
//!
//! Every command is a durable operation. Its output is the type next to it here: `StartBackup` ends with a
//! `Backup`, `RestoreBackupAsVm` with a `RestoredVm`, and so on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::{MessageOwner, NeverRefused, Timestamp, messages};
use crate::provisioner::{Consistency, HostRefused};
use crate::{BackupId, BackupRef, ByteCount, DiskName, HostName, OperationId, ScheduleId, Service, VmName};

messages! { MessageOwner::One(Service::Backup) =>
    schedulable StartBackup {
        "start_backup", from [People], refusal StartBackupRefused, about |it| it.vm.to_string()
    }
    durable RestoreBackupAsVm {
        "restore_backup_as_vm", from [People], refusal RestoreBackupAsVmRefused, about |it| it.as_vm.to_string()
    }
    schedulable VerifyBackup {
        "verify_backup", from [People], refusal VerifyBackupRefused, about |it| it.backup.to_string()
    }
    schedulable VerifyRepository {
        "verify_repository", from [People], refusal VerifyRepositoryRefused, about |_it| REPOSITORY.into()
    }
    schedulable CollectRepository {
        "collect_repository", from [People], refusal CollectRepositoryRefused, about |_it| REPOSITORY.into()
    }
    schedulable ApplyRetention {
        "apply_retention", from [People], refusal ApplyRetentionRefused, about |_it| REPOSITORY.into()
    }
    request ListBackups { "list_backups", from [People], reply Vec<Backup>, refusal NeverRefused }
    event BackupSealed { "backup_sealed", to [], about |it| it.0.id.as_str() }
}

/// Backs up a running or stopped VM: all its disks at one moment. Ends with a [`Backup`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StartBackup {
    /// The VM to back up.
    pub vm: VmName,
    /// The schedule that sends this, where one does; kept with the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleId>,
    /// The same id twice is the same command. The backup gets this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Why a backup does not begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum StartBackupRefused {
    /// There is no such VM.
    #[error("there is no vm {0}; `loam vm list` lists them")]
    UnknownVm(VmName),
    /// Another operation backs it up: a VM has one backup at a time.
    #[error("operation {by} backs up vm {vm} already; wait for it or cancel it")]
    UnderWay {
        /// The VM.
        vm: VmName,
        /// The operation that backs it up.
        by: OperationId,
    },
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

/// Creates another VM from a backup, with a new name, MAC address and UUID and without domains. Ends with a
/// [`RestoredVm`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RestoreBackupAsVm {
    /// The backup to restore.
    pub backup: BackupRef,
    /// The name of the new VM.
    pub as_vm: VmName,
    /// The host of the new VM; may be left out where there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// Whether it is restored though its host has less memory, free disk space or processors than it asks for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overcommit: bool,
    /// The same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Why a backup is not restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum RestoreBackupAsVmRefused {
    /// There is no such backup.
    #[error("there is no backup {0}; `loam backup list` lists them")]
    UnknownBackup(BackupRef),
    /// The id of more than one backup begins so.
    #[error("{given} may be any of {}", list(candidates))]
    Ambiguous {
        /// What was given.
        given: BackupRef,
        /// The first ten backups that it may mean, newest first.
        candidates: Vec<BackupId>,
    },
    /// There is a VM of that name.
    #[error("there is a vm {0} already; choose another name")]
    NameTaken(VmName),
    /// No host, or a wrong one, was named.
    #[error(transparent)]
    Host(HostRefused),
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

/// What `RestoreBackupAsVm` ends with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RestoredVm {
    /// The new VM.
    pub vm: VmName,
    /// The backup that its disks came from.
    pub backup: BackupId,
}

/// Reads all that one backup needs from the store and checks every byte of it. Ends with a [`VerifiedBackup`], or
/// undone with a reason that names the damage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyBackup {
    /// The backup to verify.
    pub backup: BackupRef,
    /// The same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Why a backup is not verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum VerifyBackupRefused {
    /// There is no such backup.
    #[error("there is no backup {0}; `loam backup list` lists them")]
    UnknownBackup(BackupRef),
    /// The id of more than one backup begins so.
    #[error("{given} may be any of {}", list(candidates))]
    Ambiguous {
        /// What was given.
        given: BackupRef,
        /// The first ten backups that it may mean, newest first.
        candidates: Vec<BackupId>,
    },
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

/// What `VerifyBackup` ends with where nothing is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifiedBackup {
    /// The backup.
    pub backup: BackupId,
    /// Chunks that were decrypted and hashed.
    pub chunks: u64,
    /// Bytes read from the store.
    pub bytes_read: ByteCount,
}

/// What operations on the whole repository are about.
pub const REPOSITORY: &str = "repository";

/// Reads packs back from the store and checks every byte of them, backups of other makers included. Without
/// `bytes_max` it also checks that every backup finds all that it needs. Ends with a [`VerifiedRepository`], or undone
/// with a reason that names the damage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyRepository {
    /// A rolling verification: at most this many bytes of packs, those first that were not verified for the longest
    /// time; at least one pack is read. Everything where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_max: Option<ByteCount>,
    /// The same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Why a verification of the repository does not begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum VerifyRepositoryRefused {
    /// Another operation verifies it.
    #[error("operation {0} verifies the repository already; wait for it or cancel it")]
    UnderWay(OperationId),
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

/// What `VerifyRepository` ends with where nothing is damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VerifiedRepository {
    /// Packs that were read whole.
    pub packs: u64,
    /// Packs that a rolling verification left for the next ones.
    pub packs_deferred: u64,
    /// Chunks that were decrypted and hashed.
    pub chunks: u64,
    /// Backups of which it was checked that everything they need is there; none in a rolling verification.
    pub backups: u64,
    /// Bytes read from the store.
    pub bytes_read: ByteCount,
}

/// Deletes what no backup needs any more (restic: prune; borg: compact). Backups may run meanwhile. Ends with a
/// [`CollectedRepository`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CollectRepository {
    /// The same id twice is the same command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<OperationId>,
}

/// Why a collection does not begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum CollectRepositoryRefused {
    /// Another operation collects.
    #[error("operation {0} collects the repository already; wait for it or cancel it")]
    UnderWay(OperationId),
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

/// What `CollectRepository` ends with. A pack is one object of the store, some 32 MiB of chunks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CollectedRepository {
    /// Packs in the store when it began.
    pub packs: u64,
    /// Packs that were deleted.
    pub packs_deleted: u64,
    /// Bytes of deleted packs.
    pub bytes_deleted: ByteCount,
    /// Bytes that were copied out of packs of which little was needed, into new ones.
    pub bytes_rewritten: ByteCount,
    /// Packs that a later collection deletes: backups under way may still need them.
    pub packs_waiting: u64,
}

/// Forgets the backups that no rule keeps. Rules are applied to each VM by itself, and only to backups that this
/// service made. Whatever the rules say, the newest three backups of each VM and backups under a hold are kept. What
/// only forgotten backups used is deleted by `CollectRepository`. Ends with an [`AppliedRetention`].
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

/// How many backups of a VM are kept, each from 1; at least one rule must be given. A backup that any rule keeps is
/// kept. Hours, days, weeks, months and years are those of UTC; the newest backup of each counts, and periods without
/// a backup do not. While such a rule has not found as many as it wants, the oldest backup is kept too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionRules {
    /// This many of the newest ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// One an hour, for this many hours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hourly: Option<u32>,
    /// One a day, for this many days.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daily: Option<u32>,
    /// One a week (ISO 8601: from Monday), for this many weeks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weekly: Option<u32>,
    /// One a month, for this many months.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monthly: Option<u32>,
    /// One a year, for this many years.
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
    /// There is no backup of that VM.
    #[error("there is no backup of vm {0}; `loam backup list` lists them")]
    NoBackups(VmName),
    /// Another operation applies retention.
    #[error("operation {0} applies retention already; wait for it or cancel it")]
    UnderWay(OperationId),
    /// The id was used for another command.
    #[error("operation id {0} was used for another command")]
    IdReused(OperationId),
}

/// What `ApplyRetention` ends with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AppliedRetention {
    /// Backups that were forgotten, at most 2,000 in one run.
    pub forgotten: Vec<BackupId>,
    /// Backups that are kept, newest first for each VM, and why; the first 500.
    pub kept: Vec<KeptBackup>,
    /// How many are kept in all.
    pub kept_total: u64,
    /// Backups that no rule keeps and that the next run forgets, because one run forgets no more than 2,000.
    pub deferred_total: u64,
}

/// A backup that retention keeps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeptBackup {
    /// The backup.
    pub backup: BackupId,
    /// Its VM.
    pub vm: VmName,
    /// All rules that keep it, in words: `daily 2 of 7`, `held`, `minimum`.
    pub reasons: Vec<String>,
}

/// A committed backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Backup {
    /// Its id, which is that of the operation that made it.
    pub id: BackupId,
    /// The VM that was backed up.
    pub vm: VmName,
    /// The moment whose content it holds.
    pub taken: Timestamp,
    /// In what state the disks were at that moment.
    pub consistency: Consistency,
    /// All disks of the VM.
    pub disks: Vec<BackedUpDisk>,
    /// The schedule that sent the command, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ScheduleId>,
    /// Bytes read from the disks; what is not allocated is not read.
    pub bytes_read: ByteCount,
    /// Bytes that the store did not hold yet, before compression.
    pub bytes_new: ByteCount,
    /// Bytes written to the store, after compression and encryption.
    pub bytes_stored: ByteCount,
    /// How long copying took, in milliseconds.
    pub took_ms: u64,
}

/// A disk inside a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BackedUpDisk {
    /// The name of the disk at its VM (`vda`).
    pub disk: DiskName,
    /// Its virtual size.
    pub size: ByteCount,
}

/// Lists the backups, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListBackups {
    /// Only those of this VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<VmName>,
}

/// A backup is complete and committed to the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct BackupSealed(pub Backup);

fn list(ids: &[BackupId]) -> String {
    ids.iter().map(BackupId::as_str).collect::<Vec<_>>().join(", ")
}
