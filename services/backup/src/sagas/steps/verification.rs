//! Reading back from the store: damage is a permanent error that names it.

use backup_domain::findings;
use backup_repository::{Problem, Progress, Repository, VerifyError, VerifyReport, VerifyScope};
use contract::ByteCount;
use operation::Context;
use saga::StepError;

use super::{permanent, read_error, with_progress};
use crate::state::ServiceState;

/// Verifies what is in scope, `what` in words and metrics: a `backup` or the `repository`. Returns the report and the
/// bytes that were read.
pub(in crate::sagas) async fn verify_scope<C>(
    context: &Context<ServiceState, C>,
    repository: &Repository,
    scope: VerifyScope<'_>,
    what: &'static str,
) -> Result<(VerifyReport, ByteCount), StepError> {
    let progress = Progress::new().into();
    let work = repository.verify(scope, &progress, &context.cancel);
    let report = with_progress(&context.progress, &progress, work).await.map_err(|error| match &error {
        VerifyError::Read(read) => read_error(read, &error),
        VerifyError::Cancelled => permanent(&error),
    })?;
    if report.is_sound() {
        return Ok((report, ByteCount(progress.read().read_bytes)));
    }
    context.state.metrics.damage_found(what);
    let named: Vec<String> = report.problems.iter().map(text).collect();
    Err(StepError::Permanent(findings::sentence(what, report.problems_total, &named)))
}

fn text(problem: &Problem) -> String {
    match problem {
        Problem::Pack { name, damage } => format!("pack {name}: {damage}"),
        Problem::Blob { pack, damage, .. } => format!("in pack {pack}: {damage}"),
        Problem::Snapshot { id, damage } => format!("snapshot {id}: {damage}"),
        Problem::Disk { disk, at_byte, damage, .. } => format!("disk {disk} at byte {at_byte}: {damage}"),
    }
}
