//! `loam schedule`.

use clap::Subcommand;
use clap_complete::ArgValueCompleter;
use contract::backup::StartBackup;
use contract::scheduler::{
    AddSchedule, ListRuns, ListSchedules, RemoveSchedule, RunStartStatus, Schedule, ScheduleStatus,
    ScheduledCommand, ScheduledRun,
};
use contract::{Request, ScheduleId, Service, VmName};
use serde_json::json;

use super::exit::CliError;
use super::output::{Text, cut, extra, show, time, whole};
use super::session::Session;
use super::{completion, examples};

#[derive(Debug, Subcommand)]
pub(super) enum ScheduleCommand {
    /// Add a schedule
    #[command(after_help = examples::SCHEDULE_ADD)]
    Add {
        /// Name of the schedule
        #[arg(value_name = "NAME")]
        id: ScheduleId,
        /// When to run: five cron fields, six with seconds first, or @daily and the like
        #[arg(long)]
        cron: String,
        /// Time zone of the cron fields, such as Europe/Paris
        #[arg(long, value_name = "ZONE", default_value = "UTC")]
        time_zone: String,
        /// Back up this VM
        #[arg(long, value_name = "VM", add = ArgValueCompleter::new(completion::vms))]
        #[arg(required_unless_present = "command", conflicts_with = "command")]
        backup: Option<VmName>,
        /// Send this command instead, such as backup.verify_repository
        #[arg(long, value_name = "SERVICE.COMMAND", value_parser = service_command)]
        command: Option<(Service, String)>,
        /// Fields of the command as a JSON object, such as {"keep":{"daily":7}}
        #[arg(long, value_name = "JSON", requires = "command", value_parser = json_object)]
        body: Option<serde_json::Value>,
    },
    /// List schedules
    List,
    /// Remove a schedule; a run that has begun goes on
    Remove {
        /// Name of the schedule
        #[arg(value_name = "NAME", add = ArgValueCompleter::new(completion::schedules))]
        id: ScheduleId,
    },
    /// List the latest runs of a schedule
    Runs {
        /// Name of the schedule
        #[arg(value_name = "NAME", add = ArgValueCompleter::new(completion::schedules))]
        id: ScheduleId,
    },
}

pub(super) async fn run(session: &Session, command: ScheduleCommand) -> Result<(), CliError> {
    match command {
        ScheduleCommand::Add { id, cron, time_zone, backup, command, body } => {
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
        ScheduleCommand::List => {
            show(session.json, &session.request(ListSchedules {}).await?, |all, text| list(all, text))
        }
        ScheduleCommand::Remove { id } => {
            let removed = session.request(RemoveSchedule { id }).await?;
            show(session.json, &removed, |schedule, text| {
                text.line(format_args!("schedule {} is removed", schedule.id));
            })
        }
        ScheduleCommand::Runs { id } => {
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

fn runs(runs: &[ScheduledRun], text: &mut Text) {
    let rows = runs.iter().map(|run| [time(&run.due), time(&run.fired), outcome(&run.outcome)]);
    text.table([whole("DUE"), whole("STARTED"), cut("OUTCOME")], rows.collect(), "no runs yet");
}

fn outcome(outcome: &RunStartStatus) -> String {
    match outcome {
        RunStartStatus::Sending(id) => format!("starting {id}"),
        RunStartStatus::Started(id) => format!("started {id}"),
        RunStartStatus::NotStarted(reason) => format!("not started: {reason}"),
        RunStartStatus::Unknown(outcome) => outcome.to_string(),
    }
}
