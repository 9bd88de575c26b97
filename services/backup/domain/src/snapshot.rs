//! Snapshots of the repository as backups of the contract.

use std::cmp::Reverse;

use chrono::DateTime;
use contract::backup::{BackedUpDisk, Backup};
use contract::provisioner::Consistency;
use contract::{BackupId, ByteCount, DiskName, ScheduleId, VmName};

/// A tag that names the schedule which sent the command.
const SCHEDULE_TAG: &str = "schedule=";
/// A tag that says how long the copy took, in milliseconds. Every snapshot of this service has it.
const TOOK_TAG: &str = "took_ms=";

/// What a snapshot records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSummary {
    /// Its id: a ULID.
    pub id: String,
    /// The name of the machine that was backed up.
    pub machine: String,
    /// The moment whose content it holds, in milliseconds since 1970.
    pub taken_at_unix_ms: u64,
    /// In what state the disks were at that moment.
    pub consistency: Consistency,
    /// Disks: name and size in bytes.
    pub disks: Vec<(String, u64)>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Bytes read from its disks.
    pub bytes_read: u64,
    /// Bytes that were new to the store.
    pub bytes_new: u64,
    /// Bytes written to the store.
    pub bytes_stored: u64,
}

/// A snapshot that this service did not make: it does not fit the contract.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("snapshot {id} was not made by this service: {why}")]
pub struct ForeignSnapshot {
    /// The snapshot.
    pub id: String,
    /// What does not fit.
    pub why: String,
}

/// The tags of a backup before it is copied.
pub fn tags(schedule: Option<&ScheduleId>) -> Vec<String> {
    schedule.map(|id| format!("{SCHEDULE_TAG}{id}")).into_iter().collect()
}

/// The tag that says how long its copy took.
pub fn took_tag(took_ms: u64) -> String {
    format!("{TOOK_TAG}{took_ms}")
}

/// The backup that a snapshot is.
///
/// # Errors
/// When the snapshot was made by another program, with a name, id or time that the contract cannot express.
pub fn backup(facts: &SnapshotSummary) -> Result<Backup, ForeignSnapshot> {
    let foreign = |why: String| ForeignSnapshot { id: facts.id.clone(), why };
    let tag = |name: &str| facts.tags.iter().find_map(|tag| tag.strip_prefix(name));
    let disks = facts
        .disks
        .iter()
        .map(|(name, bytes)| Ok(BackedUpDisk { disk: DiskName::new(name.clone())?, size: ByteCount(*bytes) }))
        .collect::<Result<_, contract::InvalidName>>()
        .map_err(|error| foreign(error.to_string()))?;
    let taken = i64::try_from(facts.taken_at_unix_ms)
        .ok()
        .and_then(DateTime::from_timestamp_millis)
        .ok_or_else(|| foreign("its time is beyond all calendars".into()))?;
    Ok(Backup {
        id: BackupId::new(facts.id.to_ascii_uppercase()).map_err(|error| foreign(error.to_string()))?,
        vm: VmName::new(facts.machine.clone()).map_err(|error| foreign(error.to_string()))?,
        taken,
        consistency: facts.consistency,
        disks,
        schedule: tag(SCHEDULE_TAG).and_then(|text| ScheduleId::new(text).ok()),
        bytes_read: ByteCount(facts.bytes_read),
        bytes_new: ByteCount(facts.bytes_new),
        bytes_stored: ByteCount(facts.bytes_stored),
        took_ms: tag(TOOK_TAG).and_then(|text| text.parse().ok()).unwrap_or_default(),
    })
}

/// Whether this service made a snapshot. Others may have added theirs to the same repository.
pub fn is_made_here(facts: &SnapshotSummary) -> bool {
    facts.tags.iter().any(|tag| tag.starts_with(TOOK_TAG)) && backup(facts).is_ok()
}

/// Sorts backups, newest first.
pub fn newest_first(mut backups: Vec<Backup>) -> Vec<Backup> {
    backups.sort_by_key(|backup| Reverse((backup.taken, backup.id.clone())));
    backups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> SnapshotSummary {
        SnapshotSummary {
            id: "01j4zzzzzzzzzzzzzzzzzzzzzz".into(),
            machine: "web".into(),
            taken_at_unix_ms: 1_700_000_000_123,
            consistency: Consistency::Filesystem,
            disks: vec![("vda".into(), 1 << 30)],
            tags: vec!["schedule=nightly".into(), took_tag(1234)],
            bytes_read: 3,
            bytes_new: 2,
            bytes_stored: 1,
        }
    }

    #[test]
    fn a_snapshot_becomes_a_backup_of_the_contract() {
        let backup = backup(&facts()).expect("a snapshot of this service");
        assert_eq!(backup.id.as_str(), "01J4ZZZZZZZZZZZZZZZZZZZZZZ");
        assert_eq!(backup.schedule.map(|id| id.to_string()).as_deref(), Some("nightly"));
        assert_eq!((backup.took_ms, backup.disks[0].size), (1234, ByteCount(1 << 30)));
        assert_eq!(backup.taken.timestamp_millis(), 1_700_000_000_123);
    }

    #[test]
    fn the_schedule_is_kept_as_it_is_read() {
        let id = ScheduleId::new("nightly").expect("a valid name");
        let facts = SnapshotSummary { tags: tags(Some(&id)), ..facts() };
        assert_eq!(backup(&facts).expect("a snapshot of this service").schedule, Some(id));
        assert!(tags(None).is_empty());
    }

    #[test]
    fn a_snapshot_of_another_program_is_named_with_what_does_not_fit() {
        let foreign = SnapshotSummary { machine: "Some Machine".into(), ..facts() };
        assert!(backup(&foreign).expect_err("a foreign snapshot").to_string().contains("vm name"));
        let timeless = SnapshotSummary { taken_at_unix_ms: u64::MAX, ..facts() };
        assert!(backup(&timeless).is_err());
    }

    #[test]
    fn only_a_snapshot_with_the_tag_of_this_service_was_made_here() {
        assert!(is_made_here(&facts()));
        assert!(!is_made_here(&SnapshotSummary { tags: vec!["schedule=nightly".into()], ..facts() }));
        assert!(!is_made_here(&SnapshotSummary { machine: "Some Machine".into(), ..facts() }));
    }
}
