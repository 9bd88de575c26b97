//! Messages of the scheduler.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::message::{NoRefusal, Owner, Timestamp, messages};
use crate::{OperationId, ScheduleId, Service, VmName};

messages! { Owner::One(Service::Scheduler) =>
    request AddSchedule { "add_schedule", from [People], reply ScheduleStatus, refusal AddScheduleRefused }
    request RemoveSchedule { "remove_schedule", from [People], reply Schedule, refusal UnknownSchedule }
    request ListSchedules { "list_schedules", from [People], reply Vec<ScheduleStatus>, refusal NoRefusal }
    request ListRuns { "list_runs", from [People], reply Vec<Run>, refusal UnknownSchedule }
    event RunFired { "run_fired", to [], about |it| it.0.schedule.as_str() }
}

/// What is to be done, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Schedule {
    /// Its name.
    pub id: ScheduleId,
    /// When: five fields (minute, hour, day, month, weekday) or six (seconds first), or `@daily` and its like.
    pub cron: String,
    /// In which time zone (IANA name, as in `Europe/Paris`).
    #[serde(default = "utc")]
    pub time_zone: String,
    /// What.
    pub work: ScheduledWork,
}

fn utc() -> String {
    "UTC".into()
}

/// Work that can be scheduled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScheduledWork {
    /// Back a machine up.
    Backup {
        /// Which.
        vm: VmName,
    },
}

/// Adds a schedule. Adding the very same again is a no-op.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddSchedule {
    /// The schedule.
    pub schedule: Schedule,
}

/// Why a schedule is not added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum AddScheduleRefused {
    /// Another has the name.
    #[error("there is another schedule {0} already; remove it first or choose another name")]
    NameTaken(ScheduleId),
    /// The cron text cannot be read, or never comes to pass.
    #[error("cron {cron:?}: {reason}")]
    BadCron {
        /// What was given.
        cron: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No such time zone.
    #[error("{0:?} is not a time zone; write an IANA name such as Europe/Paris")]
    UnknownTimeZone(String),
}

/// Removes a schedule. What it has begun goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemoveSchedule {
    /// Which.
    pub id: ScheduleId,
}

/// No such schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("there is no schedule {id}")]
pub struct UnknownSchedule {
    /// What was asked for.
    pub id: ScheduleId,
}

/// Asks which schedules there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListSchedules {}

/// A schedule and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScheduleStatus {
    /// The schedule.
    pub schedule: Schedule,
    /// When it comes next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// How it went last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Run>,
}

/// One appointment that was kept, or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// The schedule.
    pub schedule: ScheduleId,
    /// When it was to be.
    pub due: Timestamp,
    /// When it was begun.
    pub fired: Timestamp,
    /// What came of asking.
    pub outcome: RunOutcome,
}

/// What came of asking for scheduled work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// It is being asked for; if the scheduler dies here, it asks again with the same id.
    Asking(OperationId),
    /// It was begun.
    Begun(OperationId),
    /// It was refused, or nobody answered in time.
    NotBegun(String),
}

/// Asks for the latest runs of a schedule, newest first, at most a hundred.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListRuns {
    /// Of which schedule.
    pub id: ScheduleId,
}

/// An appointment was kept, or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RunFired(pub Run);
