//! What is stored stays readable: one row of each type, as version 1 writes it.

use serde_json::json;

use super::*;

#[test]
fn rows_of_version_1_are_read_and_written() {
    let id = ScheduleId::new("nightly").expect("valid");
    let body = json!({ "vm": "web" });
    let command = ScheduledCommand { service: Service::Backup, command: "start_backup".into(), body };
    let schedule = ScheduleRow {
        schedule: Schedule {
            id: id.clone(),
            cron: "30 2 * * *".into(),
            time_zone: "UTC".into(),
            command: command.clone(),
        },
        added: Timestamp::UNIX_EPOCH,
        created_by: Caller::Person { user: "UALICE".into(), name: Some("alice".into()) },
        last_due: Some(Timestamp::UNIX_EPOCH),
    };
    let row = bus::write_row(&schedule).expect("written");
    testkit::golden_row(env!("CARGO_MANIFEST_DIR"), "schedules", &row);
    assert_eq!(bus::read_row(&row), Ok(schedule.clone()));

    let run = RunRow {
        run: ScheduledRun {
            schedule: id,
            due: Timestamp::UNIX_EPOCH,
            fired: Timestamp::UNIX_EPOCH,
            outcome: RunStartStatus::NotStarted("there is no VM web".into()),
        },
        command,
        created_by: schedule.created_by,
        instance: "one".into(),
    };
    let row = bus::write_row(&run).expect("written");
    testkit::golden_row(env!("CARGO_MANIFEST_DIR"), "runs", &row);
    assert_eq!(bus::read_row(&row), Ok(run));
}
