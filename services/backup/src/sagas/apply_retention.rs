//! A retention run: backups that no rule keeps are forgotten.
//!
//! ```text
//!   queue    wait for a maintenance slot, and until no other host maintains the repository   undo: give both back
//!   plan     the rules are applied to the backups of this service; what will be forgotten is written to the journal
//!   forget   what was planned and is still planned, while the clock can be trusted and nothing holds it
//! ```
//!
//! Forgetting cannot be undone. A run that is cut off or cancelled in `forget` leaves the rest as it was; the next run
//! forgets it. A backup that was made after `plan` is never forgotten by this run.

use std::collections::HashSet;
use std::time::Duration;

use backup_domain::retention::RetentionPlan;
use backup_repository::retention::{Policy, Verdict};
use backup_repository::{
    ForgetError, ForgetPlan, HoldError, Repository, Snapshot, SnapshotError, SnapshotId,
};
use contract::backup::{AppliedRetention, ApplyRetention};
use operation::Saga;
use saga::{Outputs, Step, StepError};

use super::steps::{
    QUEUE_MAX, permanent, queue_alone, release_maintenance, repository, transient, with_lease,
};
use crate::adapters::retention::{plan_of, policy_of, run_of};
use crate::adapters::snapshots::{is_made_here, snapshot_id};
use crate::state::ServiceState;

/// Reading every snapshot, or deleting a few thousand small objects, at a slow store.
const FORGET_MAX: Duration = Duration::from_secs(3600);

type Context = operation::Context<ServiceState, ApplyRetention>;

impl Saga<ServiceState> for ApplyRetention {
    fn steps() -> Vec<Step<Context>> {
        vec![
            Step::new("queue", QUEUE_MAX, queue_alone).undone_by(undo),
            Step::new("plan", FORGET_MAX, plan),
            Step::new("forget", FORGET_MAX, forget),
        ]
    }
}

async fn undo(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    release_maintenance(context, outputs).await?;
    // Some may have been forgotten.
    context.state.repository.report_change();
    context.state.metrics.retention_undone();
    Ok(())
}

async fn plan(context: &Context, _: &Outputs) -> Result<RetentionPlan, StepError> {
    let planned = async {
        let repository = repository(&context.state).await?;
        let planned = plan_now(context, &repository).await?;
        Ok(run_of(&planned.plan))
    };
    with_lease(context, planned).await
}

async fn forget(context: &Context, outputs: &Outputs) -> Result<AppliedRetention, StepError> {
    let run: RetentionPlan = outputs.get("plan")?;
    let applied = with_lease(context, forget_planned(context, run)).await?;
    context.state.repository.report_change();
    context.state.metrics.retention_applied(&applied);
    Ok(applied)
}

async fn forget_planned(context: &Context, run: RetentionPlan) -> Result<AppliedRetention, StepError> {
    let repository = repository(&context.state).await?;
    let written: HashSet<SnapshotId> = run.forget.iter().map(snapshot_id).collect();
    let mut planned = plan_now(context, &repository).await?;
    for machine in &mut planned.plan.machines {
        machine.snapshots.retain(|judged| judged.verdict == Verdict::Forget && written.contains(&judged.id));
    }
    tokio::select! {
        biased;
        () = context.cancel.cancelled() => return Err(partly(StepError::Permanent("cancelled".into()))),
        forgotten = repository.forget_planned(planned) => forgotten.map_err(|error| partly(forget_error(&error)))?,
    };
    let left = repository.snapshot_ids().await.map_err(|error| partly(transient(&error)))?;
    let left: HashSet<SnapshotId> = left.into_iter().collect();
    Ok(run.applied(|backup| left.contains(&snapshot_id(backup))))
}

/// What the rules make of the backups of this service, and whether the clock can be trusted.
async fn plan_now(context: &Context, repository: &Repository) -> Result<ForgetPlan, StepError> {
    let policy: Policy = policy_of(&context.command.keep).map_err(StepError::Permanent)?;
    let vm = context.command.vm.as_ref();
    let is_meant = |snapshot: &Snapshot| {
        is_made_here(snapshot) && vm.is_none_or(|vm| vm.as_str() == snapshot.contents.machine)
    };
    let mut snapshots = repository.snapshots().await.map_err(|error| snapshot_error(&error))?;
    snapshots.retain(is_meant);
    let holds = repository.holds().await.map_err(|error| hold_error(&error))?;
    let held: HashSet<SnapshotId> = holds.into_iter().map(|hold| hold.snapshot).collect();
    let plan = plan_of(&policy, &snapshots, &held).map_err(|error| permanent(&error))?;
    let ForgetPlan { clock_check: clock, .. } =
        repository.plan_to_forget(&policy).await.map_err(|error| forget_error(&error))?;
    if let Err(distrust) = &clock {
        return Err(permanent(distrust));
    }
    Ok(ForgetPlan { plan, clock_check: clock })
}

/// What was forgotten before an error stays forgotten, and the operation's report must not read as if nothing was.
fn partly(error: StepError) -> StepError {
    let say = |reason: String| format!("{reason}; some of the planned backups may be forgotten already");
    match error {
        StepError::Transient(reason) => StepError::Transient(say(reason)),
        StepError::Permanent(reason) => StepError::Permanent(say(reason)),
    }
}

fn snapshot_error(error: &SnapshotError) -> StepError {
    match error {
        SnapshotError::Store(_) => transient(error),
        _ => permanent(error),
    }
}

fn hold_error(error: &HoldError) -> StepError {
    match error {
        HoldError::Store(_) => transient(error),
        _ => permanent(error),
    }
}

fn forget_error(error: &ForgetError) -> StepError {
    match error {
        ForgetError::Store(_) | ForgetError::Snapshots(SnapshotError::Store(_)) => transient(error),
        _ => permanent(error),
    }
}
