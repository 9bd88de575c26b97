//! Copying snapshots into another repository, under their own ids.
//!
//! Each repository has keys of its own, so chunks are cut and encrypted again; what the other already has is not stored
//! again, and of a snapshot whose predecessor was copied too only the segments that differ are read.
//!
//! ```text
//!   ours: predecessor ──diff── snapshot ──> disk with a dirty bitmap ──backup──> theirs, on top of the predecessor
//! ```

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tracing::{info, instrument};

use crate::backup::{CopyDisksError, SealBackupError, StreamSource};
use crate::format::snapshot::{DiskRecord, RecordKind, Snapshot, SnapshotId};
use crate::pipe::Checked;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::restore::{ReadError, RestoreError, SnapshotDisk};
use crate::snapshots::SnapshotError;
use crate::source::{Change, DiskSource, Extent, SourceError};
use crate::{BackupRequest, Cancel, diff};

/// Bytes of a stream between its reader and its writer.
const PIPE_BYTES: usize = 8 * 1024 * 1024;

/// What was copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopySnapshotsReport {
    /// Snapshots that were copied.
    pub copied: Vec<SnapshotId>,
    /// Snapshots that the other repository already had.
    pub already_there: Vec<SnapshotId>,
}

/// Not everything could be copied. What was, is whole.
#[derive(Debug, thiserror::Error)]
pub enum CopySnapshotsError {
    /// A snapshot could not be found on one of the sides.
    #[error("could not list the snapshots")]
    Snapshots(#[from] SnapshotError),
    /// The source could not be read.
    #[error("could not read snapshot {snapshot}")]
    Read {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The cause.
        #[source]
        source: RestoreError,
    },
    /// The copy could not be stored.
    #[error("could not copy snapshot {snapshot}")]
    Copy {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The cause.
        #[source]
        source: CopyDisksError,
    },
    /// The copy could not be sealed.
    #[error("could not seal snapshot {snapshot}")]
    Seal {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The cause.
        #[source]
        source: SealBackupError,
    },
}

/// A disk that knows what changed since its predecessor.
struct Successor {
    disk: SnapshotDisk,
    changed: Option<Vec<Range<u64>>>,
}

impl Repository {
    /// Copies snapshots to another repository, oldest first. One that is already there is skipped. `progress` is
    /// the sum over all of them.
    ///
    /// # Errors
    /// When a side fails or it is cancelled.
    #[instrument(name = "repository.copy_to", skip_all, fields(to = %other.id(), snapshots = ids.len()))]
    pub async fn copy_to(
        &self,
        other: &Repository,
        ids: &[SnapshotId],
        progress: &Arc<Progress>,
        cancel: &Cancel,
    ) -> Result<CopySnapshotsReport, CopySnapshotsError> {
        let mut report = CopySnapshotsReport::default();
        let all = self.snapshots().await?;
        let there = other.snapshots().await?;
        let mut known: Vec<SnapshotId> = there.iter().map(|snapshot| snapshot.id).collect();
        for id in ids {
            if !all.iter().any(|snapshot| snapshot.id == *id) {
                return Err(SnapshotError::Unknown { asked: id.to_string() }.into());
            }
        }
        for (index, snapshot) in all.iter().enumerate().filter(|(_, snapshot)| ids.contains(&snapshot.id)) {
            if known.contains(&snapshot.id) {
                report.already_there.push(snapshot.id);
                continue;
            }
            let machine = &snapshot.contents.machine;
            let predecessor = all[..index]
                .iter()
                .rev()
                .find(|earlier| &earlier.contents.machine == machine && known.contains(&earlier.id));
            self.copy_one(other, snapshot, predecessor, progress, cancel).await?;
            info!(snapshot = %snapshot.id, "copied to the other repository");
            known.push(snapshot.id);
            report.copied.push(snapshot.id);
        }
        Ok(report)
    }

    async fn copy_one(
        &self,
        other: &Repository,
        snapshot: &Snapshot,
        predecessor: Option<&Snapshot>,
        progress: &Arc<Progress>,
        cancel: &Cancel,
    ) -> Result<(), CopySnapshotsError> {
        let id = snapshot.id;
        let read = |source| CopySnapshotsError::Read { snapshot: id, source };
        let mut disks: Vec<(String, Box<dyn DiskSource>)> = Vec::new();
        let mut streams = Vec::new();
        for record in &snapshot.contents.disks {
            match record.kind {
                RecordKind::Disk => {
                    let disk = self.open_disk(snapshot, &record.name).await.map_err(read)?;
                    let changed = self.changed_since(predecessor, record).await.map_err(RestoreError::Read);
                    let successor = Successor { disk, changed: changed.map_err(read)? };
                    disks.push((record.name.clone(), Box::new(successor)));
                }
                RecordKind::Stream => {
                    streams.push((record.name.clone(), self.piped(snapshot, record, cancel)))
                }
            }
        }
        let definition = self.definition(snapshot).map_err(RestoreError::Read).map_err(read)?;
        let contents = &snapshot.contents;
        let request = BackupRequest {
            machine: contents.machine.clone(),
            taken_at_unix_ms: contents.taken_at_unix_ms,
            tags: contents.tags.clone(),
            disks,
            streams,
            definition,
            parent: predecessor.map(|snapshot| snapshot.id),
            consistency: contents.consistency,
        };
        let of_this = Arc::new(Progress::new());
        let copied = other.copy(request, &of_this, cancel).await;
        progress.add(&of_this);
        let draft = copied.map_err(|source| CopySnapshotsError::Copy { snapshot: id, source })?;
        other.seal(&draft, id).await.map_err(|source| CopySnapshotsError::Seal { snapshot: id, source })?;
        Ok(())
    }

    /// What of a disk differs from the predecessor's, where that has one of the same size.
    async fn changed_since(
        &self,
        predecessor: Option<&Snapshot>,
        record: &DiskRecord,
    ) -> Result<Option<Vec<Range<u64>>>, ReadError> {
        match predecessor.and_then(|snapshot| snapshot.disk(&record.name)) {
            Some(old) if old.kind == RecordKind::Disk && old.size_bytes == record.size_bytes => {
                diff::changed(&self.shared, old, record).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// A stream of this repository as a source of a backup. When it cannot be read to its end, its reader gets an error.
    fn piped(&self, snapshot: &Snapshot, record: &DiskRecord, cancel: &Cancel) -> StreamSource {
        let (repository, snapshot, record, cancel) =
            (self.clone(), snapshot.clone(), record.clone(), cancel.clone());
        let (mut writer, reader) = tokio::io::duplex(PIPE_BYTES);
        let (done, outcome) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let (progress, range) = (Arc::default(), 0..record.size_bytes);
            let written = repository
                .restore_stream(&snapshot, &record.name, range, &mut writer, &progress, &cancel)
                .await;
            // A reader that is gone has given up by itself.
            let _ = done.send(written);
            drop(writer);
        });
        Box::new(Checked::new(reader, outcome))
    }
}

#[async_trait]
impl DiskSource for Successor {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    async fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        let extents = self.disk.extents(range.clone()).await?;
        Ok(match &self.changed {
            Some(changed) => marked(&extents, range.start, changed),
            None => extents,
        })
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        self.disk.read_at(offset, length).await
    }
}

/// Splits extents that begin at `start` where `changed` begins and ends, and says which changed.
fn marked(extents: &[Extent], start: u64, changed: &[Range<u64>]) -> Vec<Extent> {
    let mut marked = Vec::with_capacity(extents.len());
    let mut at = start;
    for extent in extents {
        let end = at + extent.length;
        while at < end {
            let next = changed.partition_point(|range| range.end <= at);
            let (until, change) = match changed.get(next) {
                Some(range) if range.start <= at => (range.end.min(end), Change::Dirty),
                Some(range) => (range.start.min(end), Change::Clean),
                None => (end, Change::Clean),
            };
            marked.push(Extent { length: until - at, kind: extent.kind, change });
            at = until;
        }
    }
    marked
}
