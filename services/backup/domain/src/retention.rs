//! What one retention run does, from what the planner decided: bounded, so that its journal is.

use contract::BackupId;
use contract::backup::{AppliedRetention, KeptBackup, RetentionRules};
use serde::{Deserialize, Serialize};

/// One run forgets no more backups than this: their ids are written to the journal before the first is forgotten.
const FORGOTTEN_MAX: usize = 2_000;
/// A run names no more backups that it keeps; the rest are counted.
const KEPT_NAMED_MAX: usize = 500;

/// What the planner decided for one backup: the reasons to keep it, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is kept, for at least one reason.
    Keep(KeptBackup),
    /// It is forgotten.
    Forget(BackupId),
}

/// What a run is going to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionPlan {
    /// Backups to forget.
    pub forget: Vec<BackupId>,
    /// Backups that are kept; the first of them.
    pub kept: Vec<KeptBackup>,
    /// How many are kept in all.
    pub kept_total: u64,
    /// Backups that the next run forgets.
    pub deferred: u64,
}

impl RetentionPlan {
    /// The run that carries out verdicts, as far as its bounds allow.
    pub fn new(verdicts: impl IntoIterator<Item = Verdict>) -> Self {
        let mut run = RetentionPlan::default();
        for verdict in verdicts {
            match verdict {
                Verdict::Forget(_) if run.forget.len() >= FORGOTTEN_MAX => run.deferred += 1,
                Verdict::Forget(id) => run.forget.push(id),
                Verdict::Keep(kept) => {
                    run.kept_total += 1;
                    if run.kept.len() < KEPT_NAMED_MAX {
                        run.kept.push(kept);
                    }
                }
            }
        }
        run
    }

    /// What it did, given which backups are still there: one that was put under a hold in the meantime is.
    pub fn applied(self, is_there: impl Fn(&BackupId) -> bool) -> AppliedRetention {
        let (spared, forgotten): (Vec<_>, Vec<_>) = self.forget.into_iter().partition(is_there);
        AppliedRetention {
            forgotten,
            kept: self.kept,
            kept_total: self.kept_total + spared.len() as u64,
            deferred_total: self.deferred,
        }
    }
}

/// A rule that keeps no backup, where there is one: it can only be a mistake.
pub fn zero_rule(rules: &RetentionRules) -> Option<&'static str> {
    let RetentionRules { last, hourly, daily, weekly, monthly, yearly } = *rules;
    let rules = [
        ("last", last),
        ("hourly", hourly),
        ("daily", daily),
        ("weekly", weekly),
        ("monthly", monthly),
        ("yearly", yearly),
    ];
    rules.into_iter().find(|(_, count)| *count == Some(0)).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use contract::{OperationId, VmName};

    use super::*;

    fn id(bits: usize) -> BackupId {
        BackupId::from(&OperationId::from_bits(bits as u128))
    }

    fn kept(bits: usize) -> KeptBackup {
        KeptBackup {
            backup: id(bits),
            vm: VmName::new("web").expect("a valid name"),
            reasons: vec!["held".into()],
        }
    }

    #[test]
    fn a_run_forgets_and_names_no_more_than_its_bounds_and_counts_the_rest() {
        let forget = (0..FORGOTTEN_MAX + 3).map(|n| Verdict::Forget(id(n)));
        let keep = (0..KEPT_NAMED_MAX + 2).map(|n| Verdict::Keep(kept(n)));
        let run = RetentionPlan::new(forget.chain(keep));
        assert_eq!((run.forget.len(), run.deferred), (FORGOTTEN_MAX, 3));
        assert_eq!((run.kept.len(), run.kept_total), (KEPT_NAMED_MAX, KEPT_NAMED_MAX as u64 + 2));
    }

    #[test]
    fn what_was_put_under_a_hold_in_the_meantime_counts_as_kept() {
        let run = RetentionPlan::new([1, 2].map(|n| Verdict::Forget(id(n))));
        let applied = run.applied(|backup| *backup == id(2));
        assert_eq!((applied.forgotten, applied.kept_total), (vec![id(1)], 1));
    }

    #[test]
    fn a_rule_of_zero_is_found() {
        assert_eq!(zero_rule(&RetentionRules { daily: Some(7), ..RetentionRules::default() }), None);
        let zero = RetentionRules { daily: Some(7), weekly: Some(0), ..RetentionRules::default() };
        assert_eq!(zero_rule(&zero), Some("weekly"));
    }
}
