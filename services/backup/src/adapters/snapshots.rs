//! The repository's words in the domain's, and back.

use std::error::Error;

use backup_domain::catalogue::{self, Facts, NotOurs};
use backup_repository::{Consistency as Stored, Snapshot, SnapshotId};
use contract::BackupId;
use contract::backup::Backup;
use contract::provisioner::Consistency;

/// The backup that a snapshot is.
///
/// # Errors
/// When somebody else made it.
pub fn backup_of(snapshot: &Snapshot) -> Result<Backup, NotOurs> {
    let contents = &snapshot.contents;
    catalogue::backup(&Facts {
        id: snapshot.id.to_string(),
        machine: contents.machine.clone(),
        taken_at_unix_ms: contents.taken_at_unix_ms,
        consistency: match contents.consistency {
            Stored::Crash => Consistency::Crash,
            Stored::FileSystem | Stored::Application => Consistency::Filesystem,
            Stored::PoweredOff => Consistency::Off,
        },
        disks: contents.disks.iter().map(|disk| (disk.name.clone(), disk.size_bytes)).collect(),
        tags: contents.tags.clone(),
        bytes_read: contents.stats.read_bytes,
        bytes_new: contents.stats.new_bytes,
        bytes_stored: contents.stats.stored_bytes,
    })
}

/// How the repository calls a moment's trustworthiness.
pub fn stored(consistency: Consistency) -> Stored {
    match consistency {
        Consistency::Filesystem => Stored::FileSystem,
        Consistency::Crash => Stored::Crash,
        Consistency::Off => Stored::PoweredOff,
    }
}

/// The snapshot that carries a backup's id.
pub fn snapshot_id(id: &BackupId) -> SnapshotId {
    id.as_str().parse().expect("both are ULIDs")
}

/// An error and its causes in one line.
pub fn in_words(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use contract::OperationId;

    use super::*;

    #[test]
    fn a_snapshot_and_its_backup_carry_one_id() {
        let id = BackupId::from(&OperationId::from_bits(u128::MAX / 3));
        assert_eq!(snapshot_id(&id).to_string().to_ascii_uppercase(), id.as_str());
    }
}
