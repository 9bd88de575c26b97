//! `loam schedule`.

use contract::scheduler::{
    AddSchedule, ListRuns, ListSchedules, RemoveSchedule, Run, RunOutcome, Schedule, ScheduleStatus,
    ScheduledWork,
};

use super::args;
use super::exit::CliError;
use super::output::{Text, cut, extra, show, time, whole};
use super::session::Session;

pub(super) async fn run(session: &Session, command: args::Schedule) -> Result<(), CliError> {
    match command {
        args::Schedule::Add { id, cron, zone, backup } => {
            let schedule = Schedule { id, cron, time_zone: zone, work: ScheduledWork::Backup { vm: backup } };
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

/// In local time with its offset, and in UTC where that is another time.
fn next_run(next: &contract::Timestamp) -> String {
    let local = time(next);
    if local.ends_with('Z') { local } else { format!("{local} ({} UTC)", next.format("%Y-%m-%d %H:%M:%S")) }
}

fn list(schedules: &[ScheduleStatus], text: &mut Text) {
    let rows = schedules.iter().map(|status| {
        let ScheduledWork::Backup { vm } = &status.schedule.work;
        [
            status.schedule.id.to_string(),
            status.schedule.cron.clone(),
            status.schedule.time_zone.clone(),
            format!("backup {vm}"),
            status.next.as_ref().map_or_else(|| "never".into(), time),
            status.last.as_ref().map_or_else(|| "-".into(), |run| outcome(&run.outcome)),
        ]
    });
    let head = [
        whole("NAME"),
        whole("CRON"),
        extra(cut("TIME ZONE")),
        cut("WORK"),
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
        RunOutcome::Asking(id) => format!("starting {id}"),
        RunOutcome::Begun(id) => format!("started {id}"),
        RunOutcome::NotBegun(reason) => format!("not started: {reason}"),
    }
}
