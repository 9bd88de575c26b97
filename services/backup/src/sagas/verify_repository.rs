//! The verification of the repository: packs are read from the store, decrypted and hashed, whoever uses them.
//!
//! ```text
//!   queue    wait for a maintenance slot      undo: give it back
//!   verify   read everything, or as much as `bytes_max` allows of what was not read for longest;
//!            damage ends the operation with a sentence that names it
//! ```
//!
//! It changes no backup; which packs were found sound, and when, is noted in the store.

use std::time::Duration;

use backup_domain::findings;
use backup_repository::{Progress, VerifyScope};
use contract::backup::VerifiedRepository;
use contract::{ByteCount, backup};
use operation::Saga;
use saga::{Outputs, Step, StepError};

use super::steps::{
    QUEUE_MAX, TRANSFER_MAX, problem_text, queue_maintenance, release_slot, repository, verify_error,
    with_maintenance_slot, with_progress,
};
use crate::state::ServiceState;

type Context = operation::Context<ServiceState, backup::VerifyRepository>;

/// The saga of `VerifyRepository`.
pub struct VerifyRepository;

impl Saga for VerifyRepository {
    type Command = backup::VerifyRepository;
    type State = ServiceState;

    fn steps() -> Vec<Step<Context>> {
        vec![
            Step::new("queue", QUEUE_MAX, queue_maintenance).undone_by(release_slot),
            Step::new("verify", TRANSFER_MAX, verify),
        ]
    }
}

async fn verify(context: &Context, _: &Outputs) -> Result<VerifiedRepository, StepError> {
    with_maintenance_slot(context, Box::pin(read_packs(context))).await
}

async fn read_packs(context: &Context) -> Result<VerifiedRepository, StepError> {
    let metrics = &context.state.metrics;
    let repository = repository(&context.state).await?;
    let scope = match context.command.bytes_max {
        // Every pack is due, and those first that were not read for longest.
        Some(ByteCount(bytes_max)) => VerifyScope::Rolling { bytes_max, older_than: Duration::ZERO },
        None => VerifyScope::Everything,
    };
    let progress = Progress::new().into();
    let work = repository.verify(scope, &progress, &context.cancel);
    let report =
        with_progress(&context.progress, &progress, work).await.map_err(|error| verify_error(&error))?;
    if !report.is_sound() {
        metrics.damage_found("repository");
        let named: Vec<String> = report.problems.iter().map(problem_text).collect();
        return Err(StepError::Permanent(findings::sentence("repository", report.problems_total, &named)));
    }
    let verified = VerifiedRepository {
        packs: report.packs,
        packs_left: report.packs_left,
        chunks: report.blobs,
        backups: report.snapshots,
        bytes_read: ByteCount(progress.read().read_bytes),
    };
    metrics.repository_verified(&verified);
    Ok(verified)
}
