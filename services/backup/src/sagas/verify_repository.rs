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

use backup_repository::VerifyScope;
use contract::ByteCount;
use contract::backup::{VerifiedRepository, VerifyRepository};
use operation::Saga;
use saga::{Outputs, Step, StepError};

use super::steps::{
    QUEUE_MAX, TRANSFER_MAX, queue_maintenance, release_slot, repository, verify_scope, with_slot,
};
use crate::actors::SlotKind;
use crate::state::ServiceState;

type Context = operation::Context<ServiceState, VerifyRepository>;

impl Saga<ServiceState> for VerifyRepository {
    fn steps() -> Vec<Step<Context>> {
        vec![
            Step::new("queue", QUEUE_MAX, queue_maintenance).undone_by(release_slot),
            Step::new("verify", TRANSFER_MAX, verify),
        ]
    }
}

async fn verify(context: &Context, _: &Outputs) -> Result<VerifiedRepository, StepError> {
    with_slot(context, SlotKind::Maintenance, Box::pin(read_packs(context))).await
}

async fn read_packs(context: &Context) -> Result<VerifiedRepository, StepError> {
    let repository = repository(&context.state).await?;
    let scope = match context.command.bytes_max {
        // Every pack is due, and those first that were not read for longest.
        Some(ByteCount(bytes_max)) => VerifyScope::Rolling { bytes_max, older_than: Duration::ZERO },
        None => VerifyScope::Everything,
    };
    let (report, bytes_read) = verify_scope(context, &repository, scope, "repository").await?;
    let verified = VerifiedRepository {
        packs: report.packs,
        packs_deferred: report.packs_left,
        chunks: report.blobs,
        backups: report.snapshots,
        bytes_read,
    };
    context.state.metrics.repository_verified(&verified);
    Ok(verified)
}
