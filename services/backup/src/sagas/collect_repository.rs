//! A collection: packs that no backup needs are deleted, while backups run.
//!
//! ```text
//!   queue     wait for a maintenance slot, and until no other host maintains the repository   undo: give both back
//!   collect   the engine deletes what nothing needs
//! ```
//!
//! Backups under way hold leases in the store, and the engine waits with what they may rely on (its page `collect`
//! proves it), so nothing is locked here. Deleting cannot be undone and need not be: what is deleted was needed by
//! nothing. A collection that was cut off is carried on by the next.

use backup_repository::{CollectError, CollectReport, Progress};
use contract::ByteCount;
use contract::backup::{CollectRepository, CollectedRepository};
use operation::Saga;
use saga::{Outputs, Step, StepError};

use super::steps::{
    QUEUE_MAX, TRANSFER_MAX, permanent, queue_alone, read_error, release_maintenance, repository, transient,
    with_lease, with_progress,
};
use crate::state::ServiceState;

type Context = operation::Context<ServiceState, CollectRepository>;

impl Saga<ServiceState> for CollectRepository {
    fn steps() -> Vec<Step<Context>> {
        vec![
            Step::new("queue", QUEUE_MAX, queue_alone).undone_by(undo),
            Step::new("collect", TRANSFER_MAX, collect),
        ]
    }
}

async fn undo(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    release_maintenance(context, outputs).await?;
    context.state.metrics.collection_undone();
    Ok(())
}

async fn collect(context: &Context, _: &Outputs) -> Result<CollectedRepository, StepError> {
    with_lease(context, Box::pin(delete_unneeded(context))).await
}

async fn delete_unneeded(context: &Context) -> Result<CollectedRepository, StepError> {
    let state = &context.state;
    let repository = repository(state).await?;
    let progress = Progress::new().into();
    let work = repository.collect(state.config.collect_settings, &progress, &context.cancel);
    let report =
        with_progress(&context.progress, &progress, work).await.map_err(|error| step_error(&error))?;
    let collected = collected(&report);
    state.metrics.collected(&collected);
    Ok(collected)
}

fn collected(report: &CollectReport) -> CollectedRepository {
    CollectedRepository {
        packs: report.packs,
        packs_deleted: report.packs_deleted,
        bytes_deleted: ByteCount(report.bytes_deleted),
        bytes_rewritten: ByteCount(report.bytes_rewritten),
        packs_waiting: report.packs_waiting,
    }
}

fn step_error(error: &CollectError) -> StepError {
    match error {
        CollectError::Store(_) | CollectError::Index(_) | CollectError::RepositoryGone(_) => transient(error),
        CollectError::Rewrite(read) | CollectError::SnapshotIncomplete { source: read, .. } => {
            read_error(read, error)
        }
        CollectError::SnapshotDamaged { .. } | CollectError::Cancelled => permanent(error),
    }
}
