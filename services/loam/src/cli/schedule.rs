//! `loam schedule`.

use contract::backup::StartBackup;
use contract::scheduler::{
    AddSchedule, ListRuns, ListSchedules, RemoveSchedule, Run, RunOutcome, Schedule, ScheduleStatus,
    ScheduledCommand,
};
use contract::{Request, Service, VmName};
use serde_json::json;

use super::args;
use super::exit::CliError;
use super::output::{Text, cut, extra, show, time, whole};
use super::session::Session;

pub(super) async fn run(session: &Session, command: args::Schedule) -> Result<(), CliError> {
    match command {
        args::Schedule::Add { id, cron, time_zone, backup, command, body } => {
            let command = match (backup, command) {
                (Some(vm), _) => backup_command(&vm),
                (None, Some((service, command))) => {
                    ScheduledCommand { service, command, body: body.unwrap_or_else(|| json!({})) }
                }
                (None, None) => unreachable!("the arguments require one of them"),
            };
            let schedule = Schedule { id, cron, time_zone, command };
            let added = session.request(AddSchedule { schedule }).await?;
            show(session.json, &added, |added, text| {
                let next = added.next.as_ref().map_or_else(|| "never".into(), next_run);
                text.line(format_args!("schedule {} is added; next run: {next}", added.schedule.id));
            })
        }
        args::Schedule::List => {
            show(session.json, &session.request(ListSchedules {}).await?, |all, text| list(all, text))
        }
        args::Schedule::Remove { id } => {
            let removed = session.request(RemoveSchedule { id }).await?;
            show(session.json, &removed, |schedule, text| {
                text.line(format_args!("schedule {} is removed", schedule.id));
            })
        }
        args::Schedule::Runs { id } => {
            show(session.json, &session.request(ListRuns { id }).await?, |all, text| runs(all, text))
        }
    }
}

/// A command by its service and name: `backup.verify_repository`.
pub(super) fn service_command(text: &str) -> Result<(Service, String), String> {
    let (service, command) =
        text.split_once('.').ok_or("write SERVICE.COMMAND, such as backup.verify_repository")?;
    let service = service.parse::<Service>().map_err(|error| error.to_string())?;
    Ok((service, command.into()))
}

/// The fields of a command.
pub(super) fn json_object(text: &str) -> Result<serde_json::Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ serde_json::Value::Object(_)) => Ok(value),
        Ok(_) => Err("it is not a JSON object: write {\"field\": value}".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// The command that backs a VM up.
pub(super) fn backup_command(vm: &VmName) -> ScheduledCommand {
    ScheduledCommand {
        service: Service::Backup,
        command: StartBackup::NAME.into(),
        body: json!({ "vm": vm.as_str() }),
    }
}

/// A command in one line: its service, name and fields.
fn work(command: &ScheduledCommand) -> String {
    let fields = command.body.as_object().into_iter().flatten();
    let fields = fields.map(|(name, value)| match value {
        serde_json::Value::String(text) => format!(" {name}={text}"),
        value => format!(" {name}={value}"),
    });
    format!("{}.{}{}", command.service, command.command, fields.collect::<String>())
}

/// In local time with its offset, and in UTC where that is another time.
fn next_run(next: &contract::Timestamp) -> String {
    let local = time(next);
    if local.ends_with('Z') { local } else { format!("{local} ({} UTC)", next.format("%Y-%m-%d %H:%M:%S")) }
}

fn list(schedules: &[ScheduleStatus], text: &mut Text) {
    let rows = schedules.iter().map(|status| {
        [
            status.schedule.id.to_string(),
            status.schedule.cron.clone(),
            status.schedule.time_zone.clone(),
            work(&status.schedule.command),
            status.next.as_ref().map_or_else(|| "never".into(), time),
            status.last.as_ref().map_or_else(|| "-".into(), |run| outcome(&run.outcome)),
        ]
    });
    let head = [
        whole("NAME"),
        whole("CRON"),
        extra(cut("TIME ZONE")),
        cut("COMMAND"),
        whole("NEXT RUN"),
        cut("LAST RUN"),
    ];
    text.table(head, rows.collect(), "no schedules; `loam schedule add` adds one");
}

fn runs(runs: &[Run], text: &mut Text) {
    let rows = runs.iter().map(|run| [time(&run.due), time(&run.fired), outcome(&run.outcome)]);
    text.table([whole("DUE"), whole("STARTED"), cut("OUTCOME")], rows.collect(), "no runs yet");
}

fn outcome(outcome: &RunOutcome) -> String {
    match outcome {
        RunOutcome::Sending(id) => format!("starting {id}"),
        RunOutcome::Started(id) => format!("started {id}"),
        RunOutcome::NotStarted(reason) => format!("not started: {reason}"),
    }
}
