//! The verification of a backup: all that it needs is read from the store, decrypted and hashed.
//!
//! ```text
//!   resolve   which backup is meant, once and for all
//!   verify    read everything; damage ends the operation with a sentence that names it
//! ```
//!
//! It changes nothing; its undo only gives the slot back.

use backup_domain::findings;
use backup_repository::{Progress, VerifyScope};
use contract::backup::VerifiedBackup;
use contract::{BackupId, ByteCount, backup};
use operation::Saga;
use saga::{Outputs, Step, StepError};

use super::steps::{
    RESOLVE_MAX, TRANSFER_MAX, problem_text, release_slot, repository, resolve_now, snapshot, take_slot,
    verify_error, with_progress,
};
use crate::actors::SlotKind;
use crate::state::ServiceState;

type Context = operation::Context<ServiceState, backup::VerifyBackup>;

/// The saga of `VerifyBackup`.
pub struct VerifyBackup;

impl Saga for VerifyBackup {
    type Command = backup::VerifyBackup;
    type State = ServiceState;

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
    take_slot(context, SlotKind::Read).await?;
    let verified = read_all(context, backup).await;
    release_slot(context, outputs).await?;
    if let Err(StepError::Transient(_)) = &verified {
        context.state.repository.report_change();
    }
    verified
}

async fn read_all(context: &Context, backup: BackupId) -> Result<VerifiedBackup, StepError> {
    let metrics = &context.state.metrics;
    let repository = repository(&context.state).await?;
    let snapshot = snapshot(&repository, &backup).await?;
    let progress = Progress::new().into();
    let work = repository.verify(VerifyScope::Snapshot(&snapshot), &progress, &context.cancel);
    let report =
        with_progress(&context.progress, &progress, work).await.map_err(|error| verify_error(&error))?;
    if !report.is_sound() {
        metrics.damage_found("backup");
        let named: Vec<String> = report.problems.iter().map(problem_text).collect();
        return Err(StepError::Permanent(findings::sentence("backup", report.problems_total, &named)));
    }
    let bytes_read = ByteCount(progress.read().read_bytes);
    let verified = VerifiedBackup { backup, chunks: report.blobs, bytes_read };
    metrics.backup_verified(&verified);
    Ok(verified)
}
