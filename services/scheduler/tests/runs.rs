//! What the scheduler promises, with real actors on the memory bus, under a clock set by hand.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use bus::Caller;
use bus::memory::MemoryTransport;
use contract::scheduler::{
    AddSchedule, AddScheduleRefused, ListRuns, ListSchedules, RemoveSchedule, RunFired, RunStartStatus,
};
use contract::{ScheduleId, Service, bucket};
use futures::StreamExt;
use scheduler_domain::operation_for;
use serde_json::{Value, json};
use support::{CALL_MAX, Installation, at, command, schedule};
use testkit::eventually;

const DAY: u64 = 24 * 3600;

#[actix::test]
async fn a_schedule_fires_at_its_time_and_publishes_its_run() {
    let installation = Installation::at("2026-05-01T12:00:00Z");
    let _owners = installation.owners.open(&installation.bus).await;
    let _scheduler = installation.scheduler().await;
    let mut events = installation.bus.subscribe::<RunFired>().await.expect("subscribed");

    let status = installation.add("nightly", "0 3 * * *", "web").await;
    let due = at("2026-05-02T03:00:00Z");
    assert_eq!((status.next, status.last), (Some(due), None));
    installation.clock.advance(15 * 3600);

    let (RunFired(run), _) = events.next().await.expect("published");
    let id = operation_for(&ScheduleId::new("nightly").expect("valid"), due);
    assert_eq!((run.due, &run.outcome), (due, &RunStartStatus::Started(id.clone())));
    let received = installation.owners.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].body, json!({ "vm": "web", "schedule": "nightly", "operation_id": id }));
    let listed = installation.call(&ListSchedules {}).await.expect("listed");
    assert_eq!(listed[0].last, Some(run));
    assert_eq!(listed[0].next, Some(at("2026-05-03T03:00:00Z")));
}

#[actix::test]
async fn two_schedulers_make_each_run_once() {
    let installation = Installation::at("2026-05-01T12:00:00Z");
    let _owners = installation.owners.open(&installation.bus).await;
    let _one = installation.scheduler().await;
    let _other = installation.scheduler().await;
    installation.add("nightly", "0 3 * * *", "web").await;
    // The second finds the schedule when it reads the store again.
    for day in 1..=5 {
        installation.clock.advance(DAY);
        installation.finished("nightly", day).await;
    }
    let received = installation.owners.received();
    let ids: BTreeSet<_> = received.iter().map(|command| &command.id).collect();
    assert_eq!((received.len(), ids.len()), (5, 5));
}

#[actix::test]
async fn what_was_being_sent_at_a_kill_is_sent_again_with_the_same_id() {
    let installation = Installation::at("2026-05-01T12:00:00Z");
    let scheduler = installation.scheduler().await;
    installation.add("nightly", "0 3 * * *", "web").await;
    installation.clock.advance(DAY);
    eventually("the run is recorded before anybody answers", async || {
        matches!(
            installation.runs("nightly").await.first().map(|run| run.outcome.clone()),
            Some(RunStartStatus::Sending(_))
        )
    })
    .await;
    scheduler.kill();

    let _owners = installation.owners.open(&installation.bus).await;
    let _scheduler = installation.scheduler().await;
    let runs = installation.finished("nightly", 1).await;
    let due = at("2026-05-02T03:00:00Z");
    let id = operation_for(&ScheduleId::new("nightly").expect("valid"), due);
    assert_eq!((runs[0].due, &runs[0].outcome), (due, &RunStartStatus::Started(id.clone())));
    let received = installation.owners.received();
    assert_eq!(received.iter().map(|command| &command.id).collect::<Vec<_>>(), [&id]);
}

#[actix::test]
async fn a_restart_keeps_schedules_and_makes_one_run_for_what_was_missed() {
    let installation = Installation::at("2026-05-01T12:00:00Z");
    let _owners = installation.owners.open(&installation.bus).await;
    let scheduler = installation.scheduler().await;
    installation.add("hourly", "0 * * * *", "web").await;
    installation.add("yearly", "@yearly", "web").await;
    installation.clock.advance(3600);
    installation.finished("hourly", 1).await;
    let before = installation.call(&ListSchedules {}).await.expect("listed");
    scheduler.kill();

    installation.clock.advance(7 * 3600 + 60);
    let _scheduler = installation.scheduler().await;
    let runs = installation.finished("hourly", 2).await;
    assert_eq!(runs[0].due, at("2026-05-01T20:00:00Z"));
    let after = installation.call(&ListSchedules {}).await.expect("listed");
    let schedules = |list: &[contract::scheduler::ScheduleStatus]| -> Vec<_> {
        list.iter().map(|status| status.schedule.clone()).collect()
    };
    assert_eq!(schedules(&after), schedules(&before));
    assert_eq!(installation.runs("yearly").await, []);
}

#[actix::test]
async fn a_service_that_is_away_is_tried_until_it_is_back() {
    let installation = Installation::at("2026-05-01T12:00:00Z");
    let _scheduler = installation.scheduler().await;
    installation.add("nightly", "0 3 * * *", "web").await;
    installation.clock.advance(DAY);
    eventually("nobody answers", async || !installation.runs("nightly").await.is_empty()).await;
    let _owners = installation.owners.open(&installation.bus).await;
    eventually("it is sent again", async || {
        installation.clock.advance(1);
        !installation.owners.received().is_empty()
    })
    .await;
    let runs = installation.finished("nightly", 1).await;
    assert!(matches!(runs[0].outcome, RunStartStatus::Started(_)));
}

#[actix::test]
async fn no_answer_for_ten_minutes_is_recorded_with_the_reason() {
    let installation = Installation::at("2026-05-01T12:00:00Z");
    let _scheduler = installation.scheduler().await;
    installation.add("nightly", "0 3 * * *", "web").await;
    installation.clock.advance(DAY);
    let mut outcome = None;
    eventually("it gives up", async || {
        installation.clock.advance(30);
        outcome = installation.runs("nightly").await.first().map(|run| run.outcome.clone());
        matches!(outcome, Some(RunStartStatus::NotStarted(_)))
    })
    .await;
    let Some(RunStartStatus::NotStarted(reason)) = outcome else { unreachable!("it ended so") };
    assert!(reason.starts_with("tried for 10 minutes: ") && reason.contains("answers on"), "{reason}");
}

#[actix::test]
async fn a_refusal_is_recorded_at_once() {
    let installation = Installation::at("2026-05-01T12:00:00Z");
    let _owners = installation.owners.open(&installation.bus).await;
    let _scheduler = installation.scheduler().await;
    installation.add("nightly", "0 3 * * *", "nobody").await;
    installation.clock.advance(DAY);
    let runs = installation.finished("nightly", 1).await;
    assert!(
        matches!(&runs[0].outcome, RunStartStatus::NotStarted(reason) if reason.ends_with("was used for another command")),
        "{:?}",
        runs[0].outcome
    );
}

#[actix::test]
async fn a_wall_clock_that_was_set_is_noticed_within_half_a_minute() {
    let installation = Installation::at("2026-05-01T12:00:00Z");
    let _owners = installation.owners.open(&installation.bus).await;
    let _scheduler = installation.scheduler().await;
    installation.add("nightly", "0 3 * * *", "web").await;
    installation.clock.set("2026-05-02T03:00:10Z");
    installation.clock.advance(30);
    let runs = installation.finished("nightly", 1).await;
    assert_eq!(runs[0].due, at("2026-05-02T03:00:00Z"));

    // Set back, the same run is not made again.
    installation.clock.set("2026-05-02T02:59:00Z");
    installation.clock.advance(120);
    installation.clock.advance(DAY);
    installation.finished("nightly", 2).await;
    assert_eq!(installation.owners.received().len(), 2);
}

#[actix::test]
async fn an_invalid_schedule_is_refused_and_the_same_again_is_a_no_op() {
    let installation = Installation::at("2026-05-01T12:00:00Z");
    let _scheduler = installation.scheduler().await;
    let refused = async |schedule| match installation.call(&AddSchedule { schedule }).await {
        Err(bus::CallError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    };
    let never = refused(schedule("odd", "0 0 30 2 *", "web")).await;
    assert!(never.to_string().contains("never fires"), "{never}");
    let mut elsewhere = schedule("odd", "@daily", "web");
    elsewhere.time_zone = "Mars/Olympus".into();
    assert_eq!(refused(elsewhere).await, AddScheduleRefused::UnknownTimeZone("Mars/Olympus".into()));
    assert_eq!(installation.call(&ListSchedules {}).await.expect("listed"), []);

    let first = installation.add("nightly", "0 3 * * *", "web").await;
    assert_eq!(installation.add("nightly", "0 3 * * *", "web").await, first);
    let taken = refused(schedule("nightly", "0 4 * * *", "web")).await;
    assert_eq!(taken, AddScheduleRefused::NameTaken(ScheduleId::new("nightly").expect("valid")));
}

#[actix::test]
async fn a_removed_schedule_fires_no_more_and_leaves_nothing() {
    let installation = Installation::at("2026-05-01T12:00:00Z");
    let _owners = installation.owners.open(&installation.bus).await;
    let _scheduler = installation.scheduler().await;
    installation.add("nightly", "0 3 * * *", "web").await;
    installation.add("other", "0 4 * * *", "web").await;
    installation.clock.advance(DAY);
    installation.finished("nightly", 1).await;
    installation.finished("other", 1).await;
    let id = ScheduleId::new("nightly").expect("valid");
    let removed = installation.call(&RemoveSchedule { id: id.clone() }).await.expect("removed");
    assert_eq!(removed, schedule("nightly", "0 3 * * *", "web"));
    installation.clock.advance(DAY);
    installation.finished("other", 2).await;
    assert_eq!(installation.owners.received().len(), 3);
    for gone in [
        installation.call(&ListRuns { id: id.clone() }).await.err().map(|e| e.to_string()),
        installation.call(&RemoveSchedule { id }).await.err().map(|e| e.to_string()),
    ] {
        assert_eq!(gone.as_deref(), Some("there is no schedule nightly; `loam schedule list` lists them"));
    }
    installation.add("nightly", "0 3 * * *", "web").await;
    assert_eq!(installation.runs("nightly").await, []);
}

#[actix::test]
async fn the_newest_hundred_runs_are_kept() {
    let installation = Installation::at("2026-05-01T12:00:00Z");
    let _owners = installation.owners.open(&installation.bus).await;
    let _scheduler = installation.scheduler().await;
    installation.add("busy", "* * * * *", "web").await;
    for run in 1..=103u64 {
        installation.clock.advance(60);
        eventually("it fires", async || installation.owners.received().len() as u64 == run).await;
        eventually("it is recorded", async || {
            matches!(installation.runs("busy").await[0].outcome, RunStartStatus::Started(_))
        })
        .await;
    }
    let runs = installation.finished("busy", 100).await;
    assert_eq!(runs[0].due, at("2026-05-01T13:43:00Z"));
    assert_eq!(runs[99].due, at("2026-05-01T12:04:00Z"));
}

#[actix::test]
async fn a_bus_that_is_away_delays_a_run_and_nothing_more() {
    let transport = MemoryTransport::new();
    let installation = Installation::on(Arc::new(transport.clone()), "2026-05-01T12:00:00Z");
    let _owners = installation.owners.open(&installation.bus).await;
    let _scheduler = installation.scheduler().await;
    installation.add("nightly", "0 3 * * *", "web").await;
    transport.cut();
    installation.clock.advance(DAY);
    installation.clock.advance(5);
    transport.mend();
    eventually("it fires", async || {
        installation.clock.advance(2);
        !installation.owners.received().is_empty()
    })
    .await;
    installation.finished("nightly", 1).await;
    assert_eq!(installation.owners.received().len(), 1);
}

#[actix::test]
async fn schedules_outlive_the_loss_of_their_tables_and_no_run_is_made_twice() {
    for seconds in [31, DAY] {
        // The loss is found when the store is read again, or when the next run is due.
        let transport = MemoryTransport::new();
        let installation = Installation::on(Arc::new(transport.clone()), "2026-05-01T12:00:00Z");
        let _owners = installation.owners.open(&installation.bus).await;
        let _scheduler = installation.scheduler().await;
        installation.add("nightly", "0 3 * * *", "web").await;
        installation.clock.advance(DAY);
        installation.finished("nightly", 1).await;

        transport.lose_table(bucket::SCHEDULES.name);
        transport.lose_table(bucket::RUNS.name);
        installation.clock.advance(seconds);
        eventually("the schedule is there again", async || {
            let listed = installation.call(&ListSchedules {}).await.expect("listed");
            listed.iter().any(|status| status.schedule.id.as_str() == "nightly")
        })
        .await;
        installation.clock.advance(DAY);
        eventually("it fires", async || installation.owners.received().len() >= 2).await;
        let received = installation.owners.received();
        let ids: BTreeSet<_> = received.iter().map(|command| command.id.clone()).collect();
        assert_eq!(ids.len(), received.len(), "no run is made twice: {received:?}");
    }
}

#[actix::test]
async fn one_trace_spans_a_run_and_what_it_starts() {
    let identity = telemetry::Identity {
        service: "loam-scheduler".into(),
        version: "0.1.0".into(),
        instance: "test".into(),
        host: "h1".into(),
    };
    let _telemetry = telemetry::init(&identity).expect("set up once in this process");
    let installation = Installation::at("2026-05-01T12:00:00Z");
    let _owners = installation.owners.open(&installation.bus).await;
    let _scheduler = installation.scheduler().await;
    let mut events = installation.bus.subscribe::<RunFired>().await.expect("subscribed");
    installation.add("nightly", "0 3 * * *", "web").await;
    installation.clock.advance(DAY);
    let (_, context) = events.next().await.expect("published");
    let traceparent = context.get("traceparent").expect("the event carries its trace");
    let trace = traceparent.split('-').nth(1).map(str::to_string);
    assert!(trace.is_some());
    assert_eq!(installation.owners.received()[0].trace, trace);
}

#[actix::test]
async fn any_schedulable_command_is_sent_to_its_service() {
    let installation = Installation::at("2026-05-01T12:00:00Z");
    let _owners = installation.owners.open(&installation.bus).await;
    let _scheduler = installation.scheduler().await;
    for (service, name, body) in [
        (Service::Backup, "start_backup", json!({ "vm": "web" })),
        (Service::Backup, "verify_repository", json!({})),
        (Service::Provisioner, "stop_vm", json!({ "vm": "web" })),
    ] {
        let mut schedule = schedule(&name.replace('_', "-"), "0 3 * * *", "web");
        schedule.command = command(service, name, body);
        installation.call(&AddSchedule { schedule }).await.expect("added");
    }
    installation.clock.advance(DAY);
    for id in ["start-backup", "verify-repository", "stop-vm"] {
        let runs = installation.finished(id, 1).await;
        assert!(matches!(runs[0].outcome, RunStartStatus::Started(_)), "{runs:?}");
    }
    let mut received: Vec<_> =
        installation.owners.received().into_iter().map(|it| (it.command, it.body["vm"].clone())).collect();
    received.sort_by_key(|(command, _)| *command);
    let web = || json!("web");
    assert_eq!(received, [("start_backup", web()), ("stop_vm", web()), ("verify_repository", Value::Null)]);
}

#[actix::test]
async fn a_command_that_cannot_be_scheduled_is_refused_when_the_schedule_is_added() {
    let installation = Installation::at("2026-05-01T12:00:00Z");
    let _scheduler = installation.scheduler().await;
    let refused = async |service, name: &str, body| {
        let mut schedule = schedule("nightly", "@daily", "web");
        schedule.command = command(service, name, body);
        match installation.call(&AddSchedule { schedule }).await {
            Err(bus::CallError::Refused(refused)) => refused,
            other => panic!("{other:?}"),
        }
    };
    let web = || json!({ "vm": "web" });
    let refusal = refused(Service::Provisioner, "remove_vm", web()).await;
    assert!(matches!(refusal, AddScheduleRefused::NotSchedulable { .. }), "{refusal}");
    let refusal = refused(Service::Provisioner, "start_backup", web()).await;
    assert!(matches!(refusal, AddScheduleRefused::UnknownCommand { .. }), "{refusal}");
    let refusal = refused(Service::Backup, "start_backup", json!({ "vm": 7 })).await;
    assert!(matches!(refusal, AddScheduleRefused::BadBody { .. }), "{refusal}");
    let refusal = refused(Service::Backup, "start_backup", json!({ "vmm": "web" })).await;
    assert_eq!(refusal.to_string(), "start_backup has no field vmm; there are vm");
    let id = json!({ "vm": "web", "operation_id": "01JCXPHG0000000000000000AA" });
    let refusal = refused(Service::Backup, "start_backup", id).await;
    assert!(refusal.to_string().contains("leave operation_id out"), "{refusal}");
    assert_eq!(installation.call(&ListSchedules {}).await.expect("listed"), []);
}

#[actix::test]
async fn each_run_is_sent_on_behalf_of_the_caller_that_added_the_schedule() {
    let installation = Installation::at("2026-05-01T12:00:00Z");
    let _owners = installation.owners.open(&installation.bus).await;
    let scheduler = installation.scheduler().await;
    let person = Caller::Person { user: "alice".into(), name: None };
    let add = AddSchedule { schedule: schedule("nightly", "0 3 * * *", "web") };
    let status = installation.bus.call_for(&person, &add, CALL_MAX).await.expect("added");
    assert_eq!(status.created_by, person);
    // Another caller that adds the very same changes nothing.
    assert_eq!(installation.call(&add).await.expect("a no-op").created_by, person);
    installation.clock.advance(DAY);
    installation.finished("nightly", 1).await;
    scheduler.kill();
    let _scheduler = installation.scheduler().await;
    installation.clock.advance(DAY);
    installation.finished("nightly", 2).await;
    let callers: Vec<_> = installation.owners.received().into_iter().map(|it| it.caller).collect();
    assert_eq!(callers, [person.clone(), person]);
}
