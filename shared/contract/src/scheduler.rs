//! Messages of the scheduler.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::message::{Caller, MessageOwner, NeverRefused, Timestamp, messages};
use crate::{OperationId, ScheduleId, Service};

messages! { MessageOwner::One(Service::Scheduler) =>
    request AddSchedule { "add_schedule", from [People], reply ScheduleStatus, refusal AddScheduleRefused }
    request RemoveSchedule { "remove_schedule", from [People], reply Schedule, refusal UnknownSchedule }
    request ListSchedules { "list_schedules", from [People], reply Vec<ScheduleStatus>, refusal NeverRefused }
    request ListRuns { "list_runs", from [People], reply Vec<ScheduledRun>, refusal UnknownSchedule }
    event RunFired { "run_fired", to [], about |it| it.0.schedule.as_str() }
}

/// A command that is sent again and again, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Schedule {
    /// Its name, chosen by whoever adds it.
    pub id: ScheduleId,
    /// When it fires: five fields (minute, hour, day of month, month, weekday) or six (seconds first), or a nickname
    /// such as `@daily`; at most 200 characters.
    pub cron: String,
    /// The time zone that `cron` is read in: an IANA name such as `Europe/Paris`; UTC where absent.
    #[serde(default = "utc")]
    pub time_zone: String,
    /// The command that each run sends.
    pub command: ScheduledCommand,
}

fn utc() -> String {
    "UTC".into()
}

/// A durable command whose type says that it may be scheduled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScheduledCommand {
    /// The service that carries it out.
    pub service: Service,
    /// Its name, as in its subject (`start_backup`).
    pub command: String,
    /// Its fields as a JSON object of at most 1 KiB, without `operation_id` and `schedule`: the scheduler sets these for
    /// each run. Fields that hold secrets are refused. `{}` where absent.
    #[serde(default = "no_fields")]
    pub body: Value,
}

fn no_fields() -> Value {
    Value::Object(serde_json::Map::new())
}

/// Adds a schedule. Adding the very same again is a no-op.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AddSchedule {
    /// The schedule; there are at most 300.
    pub schedule: Schedule,
}

/// Why a schedule is not added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum AddScheduleRefused {
    /// Another schedule has the name.
    #[error("there is another schedule {0} already; remove it first or choose another name")]
    NameTaken(ScheduleId),
    /// The cron text cannot be read, or never fires.
    #[error("cron {cron:?}: {reason}")]
    BadCron {
        /// The text, cut to 200 characters.
        cron: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such time zone.
    #[error("{0:?} is not a time zone; write an IANA name such as Europe/Paris")]
    UnknownTimeZone(String),
    /// The service has no such command.
    #[error("{service} has no command {command:?}; schedules can send {}", .schedulable.join(", "))]
    UnknownCommand {
        /// The service named.
        service: Service,
        /// The command named.
        command: String,
        /// The commands that can be scheduled, each with its service (`backup start_backup`).
        schedulable: Vec<String>,
    },
    /// The command must not be sent by a schedule.
    #[error("{service} {command} cannot be scheduled; schedules can send {}", .schedulable.join(", "))]
    NotSchedulable {
        /// The service named.
        service: Service,
        /// The command named.
        command: String,
        /// The commands that can be scheduled, each with its service (`backup start_backup`).
        schedulable: Vec<String>,
    },
    /// Whoever adds the schedule may not send the command, so a schedule cannot do it for them.
    #[error("you may not send {command} to {service}, so no schedule can send it for you")]
    CallerNotPermitted {
        /// The service named.
        service: Service,
        /// The command named.
        command: String,
    },
    /// The command has no such field.
    #[error("{command} has no field {field}; {}", known_fields(.known))]
    UnknownField {
        /// The command named.
        command: String,
        /// The path of the field in the body (`keep.dayly`).
        field: String,
        /// The fields that there are at that place.
        known: Vec<String>,
    },
    /// The field holds secrets, and schedules can be read by everybody who may list them.
    #[error("field {field} of {command} may hold secrets, which a schedule must not hold; leave it out")]
    SecretField {
        /// The command named.
        command: String,
        /// The path of the field in the body.
        field: String,
    },
    /// The body is not one of this command.
    #[error("the body of {command} is not valid: {reason}")]
    BadBody {
        /// The command named.
        command: String,
        /// What is wrong with the body.
        reason: String,
    },
}

fn known_fields(known: &[String]) -> String {
    match known {
        [] => "it has none".into(),
        known => format!("there are {}", known.join(", ")),
    }
}

/// Removes a schedule and its run history. Operations that it started go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemoveSchedule {
    /// The schedule's name.
    pub id: ScheduleId,
}

/// There is no schedule of that name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[error("there is no schedule {id}; `loam schedule list` lists them")]
pub struct UnknownSchedule {
    /// The name that was given.
    pub id: ScheduleId,
}

/// Lists all schedules, ordered by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListSchedules {}

/// A schedule with its next and its last run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScheduleStatus {
    /// The schedule.
    pub schedule: Schedule,
    /// Who added it. Each run sends the command on behalf of this caller.
    pub created_by: Caller,
    /// When it fires next; absent where it never does again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// Its latest run; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<ScheduledRun>,
}

/// One run of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScheduledRun {
    /// The schedule's name.
    pub schedule: ScheduleId,
    /// When it was due.
    pub due: Timestamp,
    /// When it fired: later than `due` where the scheduler was not running then.
    pub fired: Timestamp,
    /// Whether the command started its operation.
    pub outcome: RunStartStatus,
}

/// Whether the command of a run started its operation. How that operation ends is in the operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunStartStatus {
    /// The command is being sent; if the scheduler dies here, it is sent again with the same operation id.
    Sending(OperationId),
    /// The operation was started.
    Started(OperationId),
    /// The command was refused, or the service did not answer for ten minutes: the reason, at most 300 characters.
    NotStarted(String),
    /// An outcome of a later version, as it was sent. It is never stored.
    #[serde(untagged)]
    Unknown(serde_json::Value),
}

/// Lists the latest runs of a schedule, newest first, at most a hundred.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListRuns {
    /// The schedule's name.
    pub id: ScheduleId,
}

/// A run has started its operation, or could not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RunFired(pub ScheduledRun);
