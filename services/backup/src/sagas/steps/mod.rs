//! What the steps of several sagas share: transfer slots, progress, the repository, verification, and errors as
//! step errors.

mod maintenance;
mod slots;
mod verification;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use backup_domain::reference::resolve;
use backup_domain::repository_state::RequiredFreshness;
use backup_repository::{Damage, Progress, ReadError, Repository, Snapshot, SnapshotError};
use contract::message::with_causes;
use contract::{BackupId, BackupRef};
use operation::ProgressMeter;
use saga::StepError;

pub(super) use self::maintenance::{queue_alone, release_maintenance, with_lease};
pub(super) use self::slots::{QUEUE_MAX, queue_copy, queue_maintenance, release_slot, take_slot, with_slot};
pub(super) use self::verification::verify_scope;
use crate::actors::RepositoryClosed;
use crate::adapters::snapshots::snapshot_id;
use crate::state::ServiceState;

/// Reading the list of backups from a slow store.
pub(super) const RESOLVE_MAX: Duration = Duration::from_secs(150);
/// Reading or writing all disks of a large VM, or a whole repository, over a slow line.
pub(super) const TRANSFER_MAX: Duration = Duration::from_secs(48 * 3600);
/// How often the engine's counters are read.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

/// An error that may pass by waiting, with its causes.
pub(super) fn transient(error: &dyn Error) -> StepError {
    StepError::Transient(with_causes(error))
}

/// An error that will not, with its causes.
pub(super) fn permanent(error: &dyn Error) -> StepError {
    StepError::Permanent(with_causes(error))
}

/// An error of reading the repository: the store may be better a little later, and what is missing may have been moved
/// by a collection, which the next attempt sees with a new index.
pub(super) fn read_error(error: &ReadError, whole: &dyn Error) -> StepError {
    match error {
        ReadError::Store(_)
        | ReadError::Index(_)
        | ReadError::DamagedPack { source: Damage::Missing { .. }, .. }
        | ReadError::Damaged(Damage::Missing { .. } | Damage::BlobMissing { .. }) => transient(whole),
        _ => permanent(whole),
    }
}

impl From<RepositoryClosed> for StepError {
    fn from(closed: RepositoryClosed) -> StepError {
        StepError::Transient(closed.to_string())
    }
}

/// Does work of the repository's engine while the operation shows its progress.
pub(super) async fn with_progress<T>(
    meter: &ProgressMeter,
    progress: &Arc<Progress>,
    work: impl Future<Output = T>,
) -> T {
    let show = async {
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            ticks.tick().await;
            let reading = progress.read();
            meter.set_total(reading.total_bytes);
            meter.set_done(reading.done_bytes);
            meter.set_stored(reading.stored_bytes);
        }
    };
    tokio::select! {
        outcome = work => outcome,
        () = show => unreachable!("progress is shown until the work ends"),
    }
}

/// The repository, checked to be there just now: a folder whose disk is away would take everything that is written.
pub(super) async fn repository(state: &ServiceState) -> Result<Repository, StepError> {
    let repository = state.repository.repository()?;
    if let Err(error) = repository.probe().await {
        state.repository.report_change();
        return Err(transient(&error));
    }
    Ok(repository)
}

/// The backup that a reference means now. One that is not in the list at hand is looked for in the store; so is the latest,
/// which another host may have made.
pub(super) async fn resolve_now(state: &ServiceState, reference: &BackupRef) -> Result<BackupId, StepError> {
    if !reference.is_latest() {
        let at_hand = state.repository.backups(RequiredFreshness::Cached).await?;
        if let Ok(backup) = resolve(reference, &at_hand) {
            return Ok(backup.id.clone());
        }
    }
    let fresh = state.repository.backups(RequiredFreshness::JustRead).await?;
    let backup = resolve(reference, &fresh).map_err(|error| permanent(&error))?;
    Ok(backup.id.clone())
}

/// The snapshot of a backup that was there before.
pub(super) async fn snapshot(repository: &Repository, id: &BackupId) -> Result<Snapshot, StepError> {
    repository.snapshot(snapshot_id(id)).await.map_err(|error| match error {
        SnapshotError::Store(_) => transient(&error),
        error => permanent(&error),
    })
}
