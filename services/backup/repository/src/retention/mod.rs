//! Retention: which snapshots to keep and which to forget.
//!
//! Promises: the same policy and snapshots give the same plan; a held snapshot is never forgotten; of every machine at
//! least the policy's minimum of newest snapshots is kept; planning again what a plan has left forgets nothing more;
//! a snapshot that newer ones pushed out is never kept again. Times outside the calendar, or an id that comes twice, are
//! refused, and then nothing is forgotten.
//!
//! ```text
//!   Rules, as a person writes them ──checked──> Policy ─┐
//!   Candidates: id, machine, time, tags, held ──────────┴─ plan ──> Plan: each kept with all its reasons, or forgotten
//!                                                                     │ printed: the preview
//!   Clocks: ours, the store's, newest snapshot, seen ── check ──> TrustedTime ── only then is the plan carried out
//! ```
//!
//! The rules mean what those of restic 0.17 and later do (its manual, "Removing snapshots according to a policy"). They
//! are applied newest first, and a snapshot is kept when one of them matches:
//! - hourly to yearly keep the last snapshot of each calendar period, and count only periods that hold one;
//! - while such a rule has counts left at the end, the oldest snapshot is kept, too, so that history grows;
//! - `keep_within` counts back from the machine's newest snapshot, not from today: a machine without backups loses nothing.
//!
//! Different from restic: periods are those of a time zone that the policy names, and the hour that comes twice when
//! summer time ends is two hours; `keep_within` from 31 March by one month ends on the last of February, not on 3
//! March; the newest few are kept whatever the rules say.
//!
//! Who may add snapshots can push others out of rules that count. Holds, `keep_within` and Object Lock protect against
//! that.
//!
//! It deliberately knows no store and no clock: candidates and times are arguments.

mod calendar;
pub mod clock;
mod count;
mod plan;
mod planner;
mod policy;
mod span;

pub use count::{Count, NotACount};
pub use plan::{MachinePlan, Plan, PlannedSnapshot, Reason, Verdict};
pub use planner::{Candidate, PlanError, plan};
pub use policy::{BadPolicy, Policy, Rules};
pub use span::{NotASpan, Span};

use std::fmt;

use serde::Serialize;

/// A rule that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The last ones, whenever they were taken.
    Last,
    /// The last of each hour that has one.
    Hourly,
    /// The last of each day.
    Daily,
    /// The last of each week by ISO 8601, Monday to Sunday.
    Weekly,
    /// The last of each month.
    Monthly,
    /// The last of each year.
    Yearly,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Last => "last",
            Rule::Hourly => "hourly",
            Rule::Daily => "daily",
            Rule::Weekly => "weekly",
            Rule::Monthly => "monthly",
            Rule::Yearly => "yearly",
        })
    }
}
