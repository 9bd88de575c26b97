//! The outcome of a policy; printed, it is the preview.

use std::fmt;

use chrono::{DateTime, TimeZone};
use chrono_tz::Tz;
use serde::{Serialize, Serializer};

use super::{Count, Rule, Span};
use crate::format::snapshot::SnapshotId;

/// Why a snapshot is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "because", rename_all = "snake_case")]
pub enum Reason {
    /// It has a hold.
    Held,
    /// It has a tag that keeps.
    Tag {
        /// The tag.
        tag: String,
    },
    /// It is younger than this, seen from the newest.
    Within {
        /// The policy's span.
        span: Span,
    },
    /// A rule that counts matches.
    Rule {
        /// The rule.
        rule: Rule,
        /// Its number within the rule, from the newest, starting at 1.
        nth: u32,
        /// The count of the rule.
        of: Count,
    },
    /// It is the oldest of all, and this rule has counts left.
    Oldest {
        /// The rule.
        rule: Rule,
    },
    /// It is among the newest that are kept in any case.
    Minimum,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Held => f.write_str("held"),
            Reason::Tag { tag } => write!(f, "tag {tag}"),
            Reason::Within { span } => write!(f, "within {span}"),
            Reason::Rule { rule, nth, of } => write!(f, "{rule} {nth} of {of}"),
            Reason::Oldest { rule } => write!(f, "oldest {rule}"),
            Reason::Minimum => f.write_str("minimum"),
        }
    }
}

/// Keep or forget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// It stays.
    Keep {
        /// Every rule that matches; never empty.
        reasons: Vec<Reason>,
    },
    /// No rule matches.
    Forget,
}

/// One snapshot and its verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlannedSnapshot {
    /// The snapshot.
    pub id: SnapshotId,
    /// When it was taken, in milliseconds since 1970.
    pub taken_at_unix_ms: u64,
    /// Keep or forget.
    #[serde(flatten)]
    pub verdict: Verdict,
}

impl PlannedSnapshot {
    /// Whether it is to be forgotten.
    pub fn is_forgotten(&self) -> bool {
        self.verdict == Verdict::Forget
    }
}

/// The snapshots of one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MachinePlan {
    /// The machine's name.
    pub machine: String,
    /// Its snapshots, newest first.
    pub snapshots: Vec<PlannedSnapshot>,
}

/// A policy, applied. Printed, it lists each snapshot: kept with the reasons, or forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The time zone of the policy, in which times are printed.
    #[serde(serialize_with = "by_name")]
    pub time_zone: Tz,
    /// The machines by name.
    pub machines: Vec<MachinePlan>,
    /// Snapshots out of the policy's scope, which are kept.
    pub out_of_scope: usize,
}

impl Plan {
    /// All snapshots in scope.
    pub fn snapshots(&self) -> impl Iterator<Item = &PlannedSnapshot> {
        self.machines.iter().flat_map(|machine| &machine.snapshots)
    }

    /// The ids of snapshots to forget.
    pub fn forgotten(&self) -> impl Iterator<Item = SnapshotId> {
        self.snapshots().filter(|judged| judged.is_forgotten()).map(|judged| judged.id)
    }
}

fn by_name<S: Serializer>(zone: &Tz, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(zone.name())
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for MachinePlan { machine, snapshots } in &self.machines {
            let (keep, forget) = counts(snapshots.iter());
            writeln!(f, "{machine}: keep {keep}, forget {forget}")?;
            for PlannedSnapshot { id, taken_at_unix_ms, verdict } in snapshots {
                let taken = shown(*taken_at_unix_ms, self.time_zone);
                match verdict {
                    Verdict::Forget => writeln!(f, "  forget  {taken}  {id}")?,
                    Verdict::Keep { reasons } => {
                        let reasons: Vec<_> = reasons.iter().map(Reason::to_string).collect();
                        writeln!(f, "  keep    {taken}  {id}  {}", reasons.join(", "))?;
                    }
                }
            }
        }
        let (keep, forget) = counts(self.snapshots());
        write!(f, "in all: keep {keep}, forget {forget}")?;
        if self.out_of_scope > 0 {
            write!(f, ", out of scope {}", self.out_of_scope)?;
        }
        writeln!(f, " (times in {})", self.time_zone.name())
    }
}

fn counts<'a>(judged: impl Iterator<Item = &'a PlannedSnapshot>) -> (usize, usize) {
    judged.fold((0, 0), |(keep, forget), judged| match judged.verdict {
        Verdict::Keep { .. } => (keep + 1, forget),
        Verdict::Forget => (keep, forget + 1),
    })
}

/// A local time with its weekday, for weekly rules.
fn shown(unix_ms: u64, zone: Tz) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(DateTime::from_timestamp_millis);
    time.map_or_else(
        || format!("{unix_ms} ms"),
        |time| zone.from_utc_datetime(&time.naive_utc()).format("%a %Y-%m-%d %H:%M:%S").to_string(),
    )
}
