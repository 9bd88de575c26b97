//! `loam schedule`.

use contract::scheduler::{
    AddSchedule, ListRuns, ListSchedules, RemoveSchedule, Run, RunOutcome, Schedule, ScheduleStatus,
    ScheduledWork,
};

use super::args;
use super::exit::Trouble;
use super::output::{show, table, time};
use super::session::Session;

pub(super) async fn run(session: &Session, command: args::Schedule) -> Result<(), Trouble> {
    match command {
        args::Schedule::Add { id, cron, zone, backup } => {
            let schedule = Schedule { id, cron, time_zone: zone, work: ScheduledWork::Backup { vm: backup } };
            let added = session.ask(AddSchedule { schedule }).await?;
            show(session.json, &added, |added| {
                let next = added.next.as_ref().map_or_else(|| "never".into(), time);
                println!("added {}; next: {next}", added.schedule.id);
            })
        }
        args::Schedule::List => show(session.json, &session.ask(ListSchedules {}).await?, |all| list(all)),
        args::Schedule::Remove { id } => {
            let removed = session.ask(RemoveSchedule { id }).await?;
            show(session.json, &removed, |schedule| println!("removed {}", schedule.id))
        }
        args::Schedule::Runs { id } => {
            show(session.json, &session.ask(ListRuns { id }).await?, |all| runs(all))
        }
    }
}

fn list(schedules: &[ScheduleStatus]) {
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
    table(
        ["SCHEDULE", "CRON", "ZONE", "WORK", "NEXT", "LAST"],
        rows.collect(),
        "no schedules; `loam schedule add` adds one",
    );
}

fn runs(runs: &[Run]) {
    let rows = runs.iter().map(|run| [time(&run.due), time(&run.fired), outcome(&run.outcome)]);
    table(["DUE", "FIRED", "OUTCOME"], rows.collect(), "it was not due yet");
}

fn outcome(outcome: &RunOutcome) -> String {
    match outcome {
        RunOutcome::Asking(id) => format!("asking for {id}"),
        RunOutcome::Begun(id) => format!("begun {id}"),
        RunOutcome::NotBegun(reason) => format!("not begun: {reason}"),
    }
}
