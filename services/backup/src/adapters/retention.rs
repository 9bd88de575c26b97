//! Retention rules of the contract as a policy of the repository, and its verdicts as values of the domain.

use std::collections::HashSet;
use std::num::NonZero;

use backup_domain::retention::{RetentionPlan, Verdict, zero_rule};
use backup_repository::retention::{self, Candidate, Count, Plan, PlanError, Policy, Rules};
use backup_repository::{Snapshot, SnapshotId};
use contract::VmName;
use contract::backup::{KeptBackup, RetentionRules};

use super::snapshots::backup_id;

/// The policy that rules make.
///
/// # Errors
/// When a rule is 0 or there is none, in a sentence that says what to do.
pub fn policy_of(rules: &RetentionRules) -> Result<Policy, String> {
    if let Some(rule) = zero_rule(rules) {
        return Err(format!("`{rule}` is 0; leave a rule out to not use it"));
    }
    let count = |rule: Option<u32>| rule.and_then(NonZero::new).map(Count::Newest);
    let rules = Rules {
        keep_last: count(rules.last),
        keep_hourly: count(rules.hourly),
        keep_daily: count(rules.daily),
        keep_weekly: count(rules.weekly),
        keep_monthly: count(rules.monthly),
        keep_yearly: count(rules.yearly),
        ..Rules::default()
    };
    Policy::try_from(rules).map_err(|_| {
        "they keep nothing; give at least one of last, hourly, daily, weekly, monthly, yearly".into()
    })
}

/// Applies a policy to snapshots; those under a hold may not be forgotten.
///
/// # Errors
/// When a snapshot has a time that no calendar knows.
pub fn plan_of(
    policy: &Policy,
    snapshots: &[Snapshot],
    held: &HashSet<SnapshotId>,
) -> Result<Plan, PlanError> {
    let candidates: Vec<_> =
        snapshots.iter().map(|snapshot| Candidate::new(snapshot, held.contains(&snapshot.id))).collect();
    retention::plan(policy, &candidates)
}

/// The run that carries out a plan.
pub fn run_of(plan: &Plan) -> RetentionPlan {
    let verdicts = plan.machines.iter().flat_map(|machine| {
        let vm = VmName::new(machine.machine.clone());
        machine.snapshots.iter().filter_map(move |judged| {
            let backup = backup_id(judged.id);
            Some(match &judged.verdict {
                retention::Verdict::Forget => Verdict::Forget(backup),
                retention::Verdict::Keep { reasons } => {
                    let reasons = reasons.iter().map(ToString::to_string).collect();
                    Verdict::Keep(KeptBackup { backup, vm: vm.clone().ok()?, reasons })
                }
            })
        })
    });
    RetentionPlan::new(verdicts)
}
