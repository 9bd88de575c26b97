//! The planner.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};

use super::calendar::{LocalTime, Period, before};
use super::{Count, MachinePlan, Plan, PlannedSnapshot, Policy, Reason, Rule, Verdict};
use crate::format::snapshot::{Snapshot, SnapshotId};

/// The facts about a snapshot that retention uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The snapshot.
    pub id: SnapshotId,
    /// The machine; rules apply to each machine's snapshots by themselves.
    pub machine: String,
    /// When it was taken, in milliseconds since 1970.
    pub taken_at_unix_ms: u64,
    /// Free text of the operator.
    pub tags: Vec<String>,
    /// Whether it has a hold.
    pub held: bool,
}

impl Candidate {
    /// The candidate of a snapshot.
    pub fn new(snapshot: &Snapshot, held: bool) -> Candidate {
        let contents = &snapshot.contents;
        Candidate {
            id: snapshot.id,
            machine: contents.machine.clone(),
            taken_at_unix_ms: contents.taken_at_unix_ms,
            tags: contents.tags.clone(),
            held,
        }
    }

    fn has_tag(&self, tag: &String) -> bool {
        self.tags.contains(tag)
    }
}

/// No plan could be made. Nothing is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The time is out of the calendar's range.
    #[error("could not plan: snapshot {id} says it was taken {unix_ms} ms after 1970, which is out of range")]
    TimeOutOfRange {
        /// The snapshot.
        id: SnapshotId,
        /// What it says.
        unix_ms: u64,
    },
    /// Forgetting one would forget the other.
    #[error("could not plan: snapshot {id} is listed twice")]
    DuplicateSnapshot {
        /// The snapshot.
        id: SnapshotId,
    },
}

/// Decides about every snapshot in the policy's scope. The order of the snapshots does not matter.
///
/// # Errors
/// When a snapshot's time is out of range or its id comes twice.
pub fn plan(policy: &Policy, snapshots: &[Candidate]) -> Result<Plan, PlanError> {
    let mut ids = HashSet::with_capacity(snapshots.len());
    let mut machines: BTreeMap<&str, Vec<(DateTime<Utc>, &Candidate)>> = BTreeMap::new();
    let mut out_of_scope = 0;
    for candidate in snapshots {
        let Candidate { id, taken_at_unix_ms: unix_ms, .. } = *candidate;
        if !ids.insert(id) {
            return Err(PlanError::DuplicateSnapshot { id });
        }
        if !is_in_scope(policy, candidate) {
            out_of_scope += 1;
            continue;
        }
        let taken = i64::try_from(unix_ms).ok().and_then(DateTime::from_timestamp_millis);
        let taken = taken.ok_or(PlanError::TimeOutOfRange { id, unix_ms })?;
        machines.entry(&candidate.machine).or_default().push((taken, candidate));
    }
    let machines = machines.into_iter().map(|(machine, mut candidates)| {
        candidates.sort_unstable_by_key(|(taken, candidate)| std::cmp::Reverse((*taken, candidate.id)));
        MachinePlan { machine: machine.to_owned(), snapshots: apply(policy, &candidates) }
    });
    Ok(Plan { time_zone: policy.rules().time_zone, machines: machines.collect(), out_of_scope })
}

fn is_in_scope(policy: &Policy, candidate: &Candidate) -> bool {
    let rules = policy.rules();
    (rules.only_machines.is_empty() || rules.only_machines.contains(&candidate.machine))
        && rules.only_tags.iter().all(|tag| candidate.has_tag(tag))
}

/// Applies the policy to the snapshots of one machine, newest first.
fn apply(policy: &Policy, candidates: &[(DateTime<Utc>, &Candidate)]) -> Vec<PlannedSnapshot> {
    let rules = policy.rules();
    let minimum = rules.keep_minimum.get() as usize;
    let window = rules.keep_within.zip(candidates.first()).map(|(span, (newest, _))| {
        (span, before(*newest, span, rules.time_zone).unwrap_or(DateTime::<Utc>::MIN_UTC))
    });
    let mut tallies: Vec<_> = policy.counted().map(|(rule, count)| Tally::new(rule, count)).collect();
    let one = |(nth, (taken, candidate)): (usize, &(DateTime<Utc>, &Candidate))| {
        let mut reasons = Vec::new();
        if candidate.held {
            reasons.push(Reason::Held);
        }
        let tags = rules.keep_tags.iter().filter(|tag| candidate.has_tag(tag));
        reasons.extend(tags.map(|tag| Reason::Tag { tag: tag.clone() }));
        if let Some((span, from)) = window
            && *taken > from
        {
            reasons.push(Reason::Within { span });
        }
        let local_time = LocalTime::of(*taken, rules.time_zone);
        let is_oldest = nth + 1 == candidates.len();
        reasons.extend(tallies.iter_mut().filter_map(|tally| tally.offer(&local_time, is_oldest)));
        if nth < minimum {
            reasons.push(Reason::Minimum);
        }
        let verdict = if reasons.is_empty() { Verdict::Forget } else { Verdict::Keep { reasons } };
        PlannedSnapshot { id: candidate.id, taken_at_unix_ms: candidate.taken_at_unix_ms, verdict }
    };
    candidates.iter().enumerate().map(one).collect()
}

/// What a rule has kept so far.
struct Tally {
    rule: Rule,
    count: Count,
    kept: u32,
    /// A set, not the last one alone: local time has been set back over midnight.
    periods: HashSet<Period>,
}

impl Tally {
    fn new(rule: Rule, count: Count) -> Tally {
        Tally { rule, count, kept: 0, periods: HashSet::new() }
    }

    /// Offers the next older snapshot.
    fn offer(&mut self, local_time: &LocalTime, is_oldest: bool) -> Option<Reason> {
        let Tally { rule, count: of, .. } = *self;
        if !of.has_room(self.kept) {
            return None;
        }
        let is_last_of_period = local_time.period(rule).is_none_or(|period| self.periods.insert(period));
        if is_last_of_period {
            self.kept = self.kept.saturating_add(1);
            return Some(Reason::Rule { rule, nth: self.kept, of });
        }
        is_oldest.then_some(Reason::Oldest { rule })
    }
}
