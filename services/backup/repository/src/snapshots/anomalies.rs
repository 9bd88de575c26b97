//! Comparing a snapshot with the earlier ones of its machine.

use crate::anomaly::{Backup, Detector, Disk, Finding};
use crate::format::snapshot::Snapshot;
use crate::repository::Repository;
use crate::snapshots::SnapshotError;

impl Repository {
    /// What is unusual about a snapshot, most severe first.
    ///
    /// # Errors
    /// When the store fails or an earlier snapshot cannot be read.
    pub async fn find_anomalies(
        &self,
        snapshot: &Snapshot,
        detector: &Detector,
    ) -> Result<Vec<Finding>, SnapshotError> {
        let earlier: Vec<_> = self
            .snapshots()
            .await?
            .iter()
            .filter(|other| other.id != snapshot.id && other.contents.machine == snapshot.contents.machine)
            .map(backup_of)
            .collect();
        Ok(detector.find(&backup_of(snapshot), &earlier))
    }
}

fn backup_of(snapshot: &Snapshot) -> Backup {
    let contents = &snapshot.contents;
    Backup {
        taken_at_unix_ms: contents.taken_at_unix_ms,
        disks: contents
            .disks
            .iter()
            .map(|disk| Disk { name: disk.name.clone(), size_bytes: disk.size_bytes })
            .collect(),
        used_bytes: contents.disks.iter().map(|disk| disk.used_bytes).sum(),
        read_bytes: contents.stats.read_bytes,
        new_bytes: contents.stats.new_bytes,
        stored_bytes: contents.stats.stored_bytes,
    }
}
