//! The verification of a backup: all that it needs is read from the store, decrypted and hashed.
//!
//! ```text
//!   resolve   which backup is meant, once and for all
//!   verify    read everything; damage ends the operation with a sentence that names it
//! ```
//!
//! It changes nothing; its undo only gives the slot back.

use backup_repository::VerifyScope;
use contract::BackupId;
use contract::backup::{VerifiedBackup, VerifyBackup};
use operation::Saga;
use saga::{Outputs, Step, StepError};

use super::steps::{
    RESOLVE_MAX, TRANSFER_MAX, release_slot, repository, resolve_now, snapshot, verify_scope, with_slot,
};
use crate::actors::SlotKind;
use crate::state::ServiceState;

type Context = operation::Context<ServiceState, VerifyBackup>;

impl Saga<ServiceState> for VerifyBackup {
    fn steps() -> Vec<Step<Context>> {
        vec![
            Step::new("resolve", RESOLVE_MAX, resolve),
            Step::new("verify", TRANSFER_MAX, verify).undone_by(release_slot),
        ]
    }
}

async fn resolve(context: &Context, _: &Outputs) -> Result<BackupId, StepError> {
    resolve_now(&context.state, &context.command.backup).await
}

async fn verify(context: &Context, outputs: &Outputs) -> Result<VerifiedBackup, StepError> {
    let backup: BackupId = outputs.get("resolve")?;
    with_slot(context, SlotKind::Read, Box::pin(read_all(context, backup))).await
}

async fn read_all(context: &Context, backup: BackupId) -> Result<VerifiedBackup, StepError> {
    let repository = repository(&context.state).await?;
    let snapshot = snapshot(&repository, &backup).await?;
    let scope = VerifyScope::Snapshot(&snapshot);
    let (report, bytes_read) = verify_scope(context, &repository, scope, "backup").await?;
    let verified = VerifiedBackup { backup, chunks: report.blobs, bytes_read };
    context.state.metrics.backup_verified(&verified);
    Ok(verified)
}
