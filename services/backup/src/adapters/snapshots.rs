//! Snapshots of the repository as values of the domain, and back.

use backup_domain::snapshot::{self, ForeignSnapshot, SnapshotSummary};
use backup_repository::{Consistency as Stored, Snapshot, SnapshotId};
use contract::BackupId;
use contract::backup::Backup;
use contract::provisioner::Consistency;

/// The backup that a snapshot is.
///
/// # Errors
/// When another program made it.
pub fn backup_of(snapshot: &Snapshot) -> Result<Backup, ForeignSnapshot> {
    snapshot::backup(&facts(snapshot))
}

/// Whether this service made a snapshot.
pub fn is_made_here(snapshot: &Snapshot) -> bool {
    snapshot::is_made_here(&facts(snapshot))
}

fn facts(snapshot: &Snapshot) -> SnapshotSummary {
    let contents = &snapshot.contents;
    SnapshotSummary {
        id: snapshot.id.to_string(),
        machine: contents.machine.clone(),
        taken_at_unix_ms: contents.taken_at_unix_ms,
        consistency: match contents.consistency {
            Stored::Crash => Consistency::Crash,
            Stored::FileSystem | Stored::Application => Consistency::Filesystem,
            Stored::PoweredOff => Consistency::PoweredOff,
        },
        disks: contents.disks.iter().map(|disk| (disk.name.clone(), disk.size_bytes)).collect(),
        tags: contents.tags.clone(),
        bytes_read: contents.stats.read_bytes,
        bytes_new: contents.stats.new_bytes,
        bytes_stored: contents.stats.stored_bytes,
    }
}

/// A consistency as the repository stores it.
pub fn stored(consistency: Consistency) -> Stored {
    match consistency {
        Consistency::Filesystem => Stored::FileSystem,
        // Of a later provisioner: what holds at least.
        Consistency::Crash | Consistency::Unknown => Stored::Crash,
        Consistency::PoweredOff => Stored::PoweredOff,
    }
}

/// The snapshot of a backup: both have one id.
pub fn snapshot_id(id: &BackupId) -> SnapshotId {
    id.as_str().parse().expect("both are ULIDs")
}

/// The backup of a snapshot.
pub fn backup_id(id: SnapshotId) -> BackupId {
    BackupId::new(id.to_string().to_ascii_uppercase()).expect("both are ULIDs")
}

#[cfg(test)]
mod tests {
    use contract::OperationId;

    use super::*;

    #[test]
    fn a_snapshot_and_its_backup_have_one_id() {
        let id = BackupId::from(&OperationId::from_bits(u128::MAX / 3));
        assert_eq!(backup_id(snapshot_id(&id)), id);
    }
}
