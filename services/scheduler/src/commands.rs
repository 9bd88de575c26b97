//! The commands that schedules can send: found in the catalog by service and name, checked, and sent by their types. No
//! command is named here.

use std::time::Duration;

use bus::{Bus, Caller};
use contract::catalog::{self, RequestEntry, Visitor};
use contract::message::with_causes;
use contract::scheduler::{AddScheduleRefused, ScheduledCommand};
use contract::{DurableCommand, Event, MessageOwner, OperationId, Request, Sender};
use futures::future::BoxFuture;
use scheduler_domain::{CommandBodyError, check_body};
use serde_json::Value;

/// A durable command is answered at once with an operation id.
const CALL_MAX: Duration = Duration::from_secs(10);
/// Bodies name a VM or a few rules; lists of 300 schedules must fit into one answer.
const BODY_BYTES_MAX: usize = 1024;
/// What the scheduler sets in the body of each run. A command without a field `schedule` ignores it.
const SET_FOR_EACH_RUN: [&str; 2] = ["operation_id", "schedule"];

/// A command type that can be scheduled.
pub(crate) struct CommandType {
    entry: RequestEntry,
    decode: fn(Value) -> Result<(), String>,
    send: fn(Bus, Caller, Value) -> BoxFuture<'static, Result<OperationId, SendCommandError>>,
}

/// Why a command started no operation.
pub(crate) struct SendCommandError {
    pub(crate) reason: String,
    /// Whether it may be accepted a little later.
    pub(crate) is_transient: bool,
}

impl CommandType {
    /// The type that a schedule names, if schedules can send it.
    pub(crate) fn find(command: &ScheduledCommand) -> Option<CommandType> {
        let mut finder = Finder { command, found: None };
        catalog::visit(&mut finder);
        finder.found
    }

    fn of<C: DurableCommand>() -> CommandType {
        CommandType { entry: RequestEntry::of::<C>(), decode: decode::<C>, send: send::<C> }
    }

    /// Sends the command of one run.
    pub(crate) async fn send(
        &self,
        bus: &Bus,
        caller: &Caller,
        body: &Value,
        fields_of_run: [String; SET_FOR_EACH_RUN.len()],
    ) -> Result<OperationId, SendCommandError> {
        let mut body = body.clone();
        for (field, value) in SET_FOR_EACH_RUN.into_iter().zip(fields_of_run) {
            body[field] = value.into();
        }
        (self.send)(bus.clone(), caller.clone(), body).await
    }
}

struct Finder<'a> {
    command: &'a ScheduledCommand,
    found: Option<CommandType>,
}

impl Visitor for Finder<'_> {
    fn request<R: Request>(&mut self) {}
    fn durable<C: DurableCommand>(&mut self) {}
    fn schedulable<C: DurableCommand>(&mut self) {
        if C::OWNER == MessageOwner::One(self.command.service) && C::NAME == self.command.command {
            self.found = Some(CommandType::of::<C>());
        }
    }
    fn event<E: Event>(&mut self) {}
}

fn decode<C: DurableCommand>(body: Value) -> Result<(), String> {
    serde_json::from_value::<C>(body).map(drop).map_err(|error| error.to_string())
}

fn send<C: DurableCommand>(
    bus: Bus,
    caller: Caller,
    body: Value,
) -> BoxFuture<'static, Result<OperationId, SendCommandError>> {
    Box::pin(async move {
        let command: C = serde_json::from_value(body).map_err(|error| SendCommandError {
            reason: format!("this version cannot read the body of {}: {error}", C::NAME),
            is_transient: false,
        })?;
        match bus.call_for(&caller, &command, CALL_MAX).await {
            Ok(begun) => Ok(begun.operation().clone()),
            Err(error) => {
                Err(SendCommandError { is_transient: error.is_transient(), reason: with_causes(&error) })
            }
        }
    })
}

/// Checks a command that a caller wants to schedule.
pub(crate) fn check(command: &ScheduledCommand, caller: &Caller) -> Result<(), AddScheduleRefused> {
    let found = CommandType::find(command).ok_or_else(|| not_found(command))?;
    let (service, name) = (command.service, command.command.clone());
    if !may_send(&found.entry, caller) {
        return Err(AddScheduleRefused::CallerNotPermitted { service, command: name });
    }
    let bad = |reason: String| AddScheduleRefused::BadBody { command: name.clone(), reason };
    let Some(fields) = command.body.as_object() else {
        return Err(bad("write a JSON object".into()));
    };
    if command.body.to_string().len() > BODY_BYTES_MAX {
        return Err(bad(format!("it has more than {BODY_BYTES_MAX} bytes")));
    }
    if let Some(set) = SET_FOR_EACH_RUN.into_iter().find(|field| fields.contains_key(*field)) {
        return Err(bad(format!("leave {set} out, the scheduler sets it for each run")));
    }
    check_body((found.entry.request)().as_value(), &command.body).map_err(|problem| match problem {
        CommandBodyError::SecretField { field } => {
            AddScheduleRefused::SecretField { command: name.clone(), field }
        }
        CommandBodyError::UnknownField { field, mut known } => {
            known.retain(|field| !SET_FOR_EACH_RUN.contains(&field.as_str()));
            AddScheduleRefused::UnknownField { command: name.clone(), field, known }
        }
    })?;
    (found.decode)(command.body.clone()).map_err(bad)
}

/// Whether a caller may send a command itself. Only people may add schedules, or anybody on a bus without accounts.
fn may_send(entry: &RequestEntry, caller: &Caller) -> bool {
    match caller {
        Caller::Person { .. } => entry.is_sent_by(Sender::People),
        Caller::Anonymous => true,
        Caller::Service(_) | Caller::JoiningHost { .. } | Caller::Unknown => false,
    }
}

fn not_found(command: &ScheduledCommand) -> AddScheduleRefused {
    let all = catalog::requests();
    let of_service = |entry: &&RequestEntry| entry.owners().contains(&command.service);
    let exists = all.iter().filter(of_service).any(|entry| entry.name == command.command);
    let mut schedulable: Vec<String> = all
        .iter()
        .filter(|entry| entry.schedulable)
        .flat_map(|entry| entry.owners().into_iter().map(move |owner| format!("{owner} {}", entry.name)))
        .collect();
    schedulable.sort();
    let service = command.service;
    // A name is as long as whoever writes it wants.
    let command: String = command.command.chars().take(80).collect();
    if exists {
        AddScheduleRefused::NotSchedulable { service, command, schedulable }
    } else {
        AddScheduleRefused::UnknownCommand { service, command, schedulable }
    }
}

#[cfg(test)]
mod tests {
    use contract::Service;
    use contract::provisioner::{CreateReservedVm, StopVm};
    use serde_json::json;

    use super::*;

    fn person() -> Caller {
        Caller::Person { user: "alice".into(), name: None }
    }

    fn refusal(service: Service, command: &str, body: Value) -> String {
        let command = ScheduledCommand { service, command: command.into(), body };
        check(&command, &person()).expect_err("refused").to_string()
    }

    #[test]
    fn every_schedulable_command_can_be_found_and_takes_what_a_run_sets() {
        for entry in catalog::requests().into_iter().filter(|entry| entry.schedulable) {
            let command =
                ScheduledCommand { service: entry.owners()[0], command: entry.name.into(), body: json!({}) };
            assert!(CommandType::find(&command).is_some(), "{}", entry.name);
            let schema = (entry.request)();
            assert!(schema.as_value()["properties"]["operation_id"].is_object(), "{}", entry.name);
            assert!(
                schema.as_value()["additionalProperties"] != false,
                "{}: it must ignore `schedule`",
                entry.name
            );
        }
    }

    #[test]
    fn a_refusal_says_what_can_be_scheduled() {
        let unknown = refusal(Service::Backup, "backup_all", json!({}));
        assert!(
            unknown.starts_with("backup has no command \"backup_all\"; schedules can send "),
            "{unknown}"
        );
        let not_schedulable = refusal(Service::Provisioner, "remove_vm", json!({ "vm": "web" }));
        assert!(
            not_schedulable.starts_with("provisioner remove_vm cannot be scheduled; "),
            "{not_schedulable}"
        );
        for refusal in [unknown, not_schedulable] {
            assert!(refusal.contains("provisioner stop_vm") && !refusal.contains("create_vm"), "{refusal}");
        }
    }

    #[test]
    fn a_body_that_the_owner_would_not_understand_is_refused() {
        let stop = |body| refusal(Service::Provisioner, "stop_vm", body);
        assert_eq!(stop(json!({ "vmm": "web" })), "stop_vm has no field vmm; there are vm");
        assert_eq!(stop(json!({})), "the body of stop_vm is not valid: missing field `vm`");
        assert!(stop(json!({ "vm": "No Name" })).contains("is not a vm name"));
        assert!(stop(json!("web")).contains("write a JSON object"));
        assert!(stop(json!({ "vm": "w".repeat(BODY_BYTES_MAX) })).contains("1024 bytes"));
        for field in SET_FOR_EACH_RUN {
            assert!(stop(json!({ "vm": "web", field: "x" })).contains(&format!("leave {field} out")));
        }
    }

    #[test]
    fn people_can_schedule_only_what_they_may_send() {
        assert!(may_send(&RequestEntry::of::<StopVm>(), &person()));
        assert!(!may_send(&RequestEntry::of::<CreateReservedVm>(), &person()));
    }
}
