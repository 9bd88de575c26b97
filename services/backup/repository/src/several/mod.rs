//! Backup into several repositories at once: each disk is read once.
//!
//! ```text
//!   source ──read once──> Tee ──┬──> repository A: cut, hash, encrypt, upload
//!                  64 MiB kept  └──> repository B: the same, with keys of its own
//! ```
//!
//! Promises: each destination gets what it would have got alone, and one that fails does not stop the others; the slowest
//! sets the pace, so what is buffered for it is bounded; a range that one of them asks for much later, or alone, is read
//! again.
//!
//! It does not know which destination is the main one.

mod stream;
mod tee;

use std::sync::Arc;

use futures::future::join_all;

use self::tee::Tee;
use crate::backup::{BackupRequest, CopyDisksError, Draft};
use crate::format::snapshot::SnapshotId;
use crate::source::DiskSource;
use crate::{Cancel, Progress, Repository};

/// Where one copy of a backup goes.
#[derive(Debug)]
pub struct Destination<'a> {
    /// The repository.
    pub repository: &'a Repository,
    /// The snapshot in it that the sources' dirty bitmaps refer to.
    pub parent: Option<SnapshotId>,
    /// The progress of this copy; must be fresh.
    pub progress: Arc<Progress>,
}

/// Copies disks and streams into several repositories at once, as [`Repository::copy`] does into one, and returns the
/// outcome of each, in their order. The request's own parent is ignored.
pub async fn back_up_to_several(
    request: BackupRequest,
    destinations: &[Destination<'_>],
    cancel: &Cancel,
) -> Vec<Result<Draft, CopyDisksError>> {
    let BackupRequest { machine, taken_at_unix_ms, tags, disks, streams, definition, consistency, .. } =
        request;
    let mut disks_of: Vec<Vec<_>> = destinations.iter().map(|_| Vec::new()).collect();
    for (name, source) in disks {
        for (of_one, disk) in disks_of.iter_mut().zip(Tee::split(source, destinations.len())) {
            of_one.push((name.clone(), Box::new(disk) as Box<dyn DiskSource>));
        }
    }
    let mut streams_of: Vec<Vec<_>> = destinations.iter().map(|_| Vec::new()).collect();
    for (name, source) in streams {
        for (of_one, stream) in streams_of.iter_mut().zip(stream::split(source, destinations.len())) {
            of_one.push((name.clone(), stream));
        }
    }
    let copies =
        destinations.iter().zip(disks_of.into_iter().zip(streams_of)).map(|(to, (disks, streams))| {
            let request = BackupRequest {
                machine: machine.clone(),
                taken_at_unix_ms,
                tags: tags.clone(),
                disks,
                streams,
                definition: definition.clone(),
                parent: to.parent,
                consistency,
            };
            to.repository.copy(request, &to.progress, cancel)
        });
    join_all(copies).await
}
