//! What the scheduler promises, with real actors on the memory bus, under a clock set by hand.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use bus::memory::MemoryTransport;
use contract::scheduler::{
    AddSchedule, AddScheduleRefused, ListRuns, ListSchedules, RemoveSchedule, RunFired, RunOutcome,
};
use contract::{ScheduleId, VmName};
use futures::StreamExt;
use scheduler_domain::operation_for;
use support::{World, at, schedule};
use testkit::eventually;

const DAY: u64 = 24 * 3600;

#[actix::test]
async fn an_appointment_is_kept_at_its_time_and_told() {
    let world = World::at("2026-05-01T12:00:00Z");
    let _desk = world.backup.open(&world.bus).await;
    let _scheduler = world.scheduler().await;
    let mut told = world.bus.subscribe::<RunFired>().await.expect("listening");

    let status = world.add("nightly", "0 3 * * *", "web").await;
    let due = at("2026-05-02T03:00:00Z");
    assert_eq!((status.next, status.last), (Some(due), None));
    world.clock.advance(15 * 3600);

    let (RunFired(run), _) = told.next().await.expect("told");
    let id = operation_for(&ScheduleId::new("nightly").expect("valid"), due);
    assert_eq!((run.due, &run.outcome), (due, &RunOutcome::Begun(id.clone())));
    let asked = world.backup.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].vm, VmName::new("web").expect("valid"));
    assert_eq!(asked[0].schedule.as_ref().map(ScheduleId::as_str), Some("nightly"));
    assert_eq!(asked[0].operation_id, Some(id));
    let listed = world.call(&ListSchedules {}).await.expect("listed");
    assert_eq!(listed[0].last, Some(run));
    assert_eq!(listed[0].next, Some(at("2026-05-03T03:00:00Z")));
}

#[actix::test]
async fn two_schedulers_keep_an_appointment_once() {
    let world = World::at("2026-05-01T12:00:00Z");
    let _desk = world.backup.open(&world.bus).await;
    let _one = world.scheduler().await;
    let _other = world.scheduler().await;
    world.add("nightly", "0 3 * * *", "web").await;
    // The second learns of the schedule when it looks at the diary again.
    for day in 1..=5 {
        world.clock.advance(DAY);
        world.settled("nightly", day).await;
    }
    let asked = world.backup.asked();
    let ids: BTreeSet<_> = asked.iter().map(|request| &request.operation_id).collect();
    assert_eq!((asked.len(), ids.len()), (5, 5));
}

#[actix::test]
async fn what_was_being_asked_for_at_a_kill_is_asked_for_again_with_the_same_id() {
    let world = World::at("2026-05-01T12:00:00Z");
    let scheduler = world.scheduler().await;
    world.add("nightly", "0 3 * * *", "web").await;
    world.clock.advance(DAY);
    eventually("the run is written down before anybody answers", async || {
        matches!(
            world.runs("nightly").await.first().map(|run| run.outcome.clone()),
            Some(RunOutcome::Asking(_))
        )
    })
    .await;
    scheduler.kill();

    let _desk = world.backup.open(&world.bus).await;
    let _scheduler = world.scheduler().await;
    let runs = world.settled("nightly", 1).await;
    let due = at("2026-05-02T03:00:00Z");
    let id = operation_for(&ScheduleId::new("nightly").expect("valid"), due);
    assert_eq!((runs[0].due, &runs[0].outcome), (due, &RunOutcome::Begun(id.clone())));
    let asked = world.backup.asked();
    assert_eq!(asked.iter().map(|request| &request.operation_id).collect::<Vec<_>>(), [&Some(id)]);
}

#[actix::test]
async fn a_restart_keeps_schedules_and_makes_one_run_for_what_was_missed() {
    let world = World::at("2026-05-01T12:00:00Z");
    let _desk = world.backup.open(&world.bus).await;
    let scheduler = world.scheduler().await;
    world.add("hourly", "0 * * * *", "web").await;
    world.add("yearly", "@yearly", "web").await;
    world.clock.advance(3600);
    world.settled("hourly", 1).await;
    let before = world.call(&ListSchedules {}).await.expect("listed");
    scheduler.kill();

    world.clock.advance(7 * 3600 + 60);
    let _scheduler = world.scheduler().await;
    let runs = world.settled("hourly", 2).await;
    assert_eq!(runs[0].due, at("2026-05-01T20:00:00Z"));
    let after = world.call(&ListSchedules {}).await.expect("listed");
    let schedules = |list: &[contract::scheduler::ScheduleStatus]| -> Vec<_> {
        list.iter().map(|status| status.schedule.clone()).collect()
    };
    assert_eq!(schedules(&after), schedules(&before));
    assert_eq!(world.runs("yearly").await, []);
}

#[actix::test]
async fn a_backup_service_that_is_away_is_asked_until_it_is_back() {
    let world = World::at("2026-05-01T12:00:00Z");
    let _scheduler = world.scheduler().await;
    world.add("nightly", "0 3 * * *", "web").await;
    world.clock.advance(DAY);
    eventually("it is asked in vain", async || !world.runs("nightly").await.is_empty()).await;
    let _desk = world.backup.open(&world.bus).await;
    eventually("it is asked again", async || {
        world.clock.advance(1);
        !world.backup.asked().is_empty()
    })
    .await;
    let runs = world.settled("nightly", 1).await;
    assert!(matches!(runs[0].outcome, RunOutcome::Begun(_)));
}

#[actix::test]
async fn nobody_answering_for_ten_minutes_is_written_down_with_the_reason() {
    let world = World::at("2026-05-01T12:00:00Z");
    let _scheduler = world.scheduler().await;
    world.add("nightly", "0 3 * * *", "web").await;
    world.clock.advance(DAY);
    let mut outcome = None;
    eventually("it gives up", async || {
        world.clock.advance(30);
        outcome = world.runs("nightly").await.first().map(|run| run.outcome.clone());
        matches!(outcome, Some(RunOutcome::NotBegun(_)))
    })
    .await;
    let Some(RunOutcome::NotBegun(reason)) = outcome else { unreachable!("just seen") };
    assert!(reason.starts_with("asked for 10 minutes in vain: "), "{reason}");
}

#[actix::test]
async fn a_refusal_is_written_down_at_once() {
    let world = World::at("2026-05-01T12:00:00Z");
    let _desk = world.backup.open(&world.bus).await;
    let _scheduler = world.scheduler().await;
    world.add("nightly", "0 3 * * *", "nobody").await;
    world.clock.advance(DAY);
    let runs = world.settled("nightly", 1).await;
    assert_eq!(runs[0].outcome, RunOutcome::NotBegun("there is no vm nobody".into()));
}

#[actix::test]
async fn a_wall_clock_that_was_set_is_noticed_within_half_a_minute() {
    let world = World::at("2026-05-01T12:00:00Z");
    let _desk = world.backup.open(&world.bus).await;
    let _scheduler = world.scheduler().await;
    world.add("nightly", "0 3 * * *", "web").await;
    world.clock.set("2026-05-02T03:00:10Z");
    world.clock.advance(30);
    let runs = world.settled("nightly", 1).await;
    assert_eq!(runs[0].due, at("2026-05-02T03:00:00Z"));

    // Set back, the same appointment does not come again.
    world.clock.set("2026-05-02T02:59:00Z");
    world.clock.advance(120);
    world.clock.advance(DAY);
    world.settled("nightly", 2).await;
    assert_eq!(world.backup.asked().len(), 2);
}

#[actix::test]
async fn what_makes_no_sense_is_refused_and_the_same_again_is_calm() {
    let world = World::at("2026-05-01T12:00:00Z");
    let _scheduler = world.scheduler().await;
    let refused = async |schedule| match world.call(&AddSchedule { schedule }).await {
        Err(bus::CallError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    };
    let never = refused(schedule("odd", "0 0 30 2 *", "web")).await;
    assert!(never.to_string().contains("never comes to pass"), "{never}");
    let mut elsewhere = schedule("odd", "@daily", "web");
    elsewhere.time_zone = "Mars/Olympus".into();
    assert_eq!(refused(elsewhere).await, AddScheduleRefused::UnknownTimeZone("Mars/Olympus".into()));
    assert_eq!(world.call(&ListSchedules {}).await.expect("listed"), []);

    let first = world.add("nightly", "0 3 * * *", "web").await;
    assert_eq!(world.add("nightly", "0 3 * * *", "web").await, first);
    let taken = refused(schedule("nightly", "0 4 * * *", "web")).await;
    assert_eq!(taken, AddScheduleRefused::NameTaken(ScheduleId::new("nightly").expect("valid")));
}

#[actix::test]
async fn a_removed_schedule_fires_no_more_and_leaves_nothing() {
    let world = World::at("2026-05-01T12:00:00Z");
    let _desk = world.backup.open(&world.bus).await;
    let _scheduler = world.scheduler().await;
    world.add("nightly", "0 3 * * *", "web").await;
    world.add("other", "0 4 * * *", "web").await;
    world.clock.advance(DAY);
    world.settled("nightly", 1).await;
    world.settled("other", 1).await;
    let id = ScheduleId::new("nightly").expect("valid");
    let removed = world.call(&RemoveSchedule { id: id.clone() }).await.expect("removed");
    assert_eq!(removed, schedule("nightly", "0 3 * * *", "web"));
    world.clock.advance(DAY);
    world.settled("other", 2).await;
    assert_eq!(world.backup.asked().len(), 3);
    for gone in [
        world.call(&ListRuns { id: id.clone() }).await.err().map(|e| e.to_string()),
        world.call(&RemoveSchedule { id }).await.err().map(|e| e.to_string()),
    ] {
        assert_eq!(gone.as_deref(), Some("there is no schedule nightly"));
    }
    world.add("nightly", "0 3 * * *", "web").await;
    assert_eq!(world.runs("nightly").await, []);
}

#[actix::test]
async fn the_newest_hundred_runs_are_kept() {
    let world = World::at("2026-05-01T12:00:00Z");
    let _desk = world.backup.open(&world.bus).await;
    let _scheduler = world.scheduler().await;
    world.add("busy", "* * * * *", "web").await;
    for run in 1..=103u64 {
        world.clock.advance(60);
        eventually("it is kept", async || world.backup.asked().len() as u64 == run).await;
        eventually("it is written down", async || {
            matches!(world.runs("busy").await[0].outcome, RunOutcome::Begun(_))
        })
        .await;
    }
    let runs = world.settled("busy", 100).await;
    assert_eq!(runs[0].due, at("2026-05-01T13:43:00Z"));
    assert_eq!(runs[99].due, at("2026-05-01T12:04:00Z"));
}

#[actix::test]
async fn the_bus_going_away_delays_an_appointment_and_nothing_more() {
    let carrier = MemoryTransport::new();
    let world = World::on(Arc::new(carrier.clone()), "2026-05-01T12:00:00Z");
    let _desk = world.backup.open(&world.bus).await;
    let _scheduler = world.scheduler().await;
    world.add("nightly", "0 3 * * *", "web").await;
    carrier.cut();
    world.clock.advance(DAY);
    world.clock.advance(5);
    carrier.mend();
    eventually("it is kept", async || {
        world.clock.advance(2);
        !world.backup.asked().is_empty()
    })
    .await;
    world.settled("nightly", 1).await;
    assert_eq!(world.backup.asked().len(), 1);
}

#[actix::test]
async fn one_trace_leads_from_the_appointment_to_what_it_sets_in_motion() {
    let identity = telemetry::Identity {
        service: "loam-scheduler".into(),
        version: "0.1.0".into(),
        instance: "test".into(),
        host: "h1".into(),
    };
    let _telemetry = telemetry::init(&identity).expect("set up once in this process");
    let world = World::at("2026-05-01T12:00:00Z");
    let _desk = world.backup.open(&world.bus).await;
    let _scheduler = world.scheduler().await;
    let mut told = world.bus.subscribe::<RunFired>().await.expect("listening");
    world.add("nightly", "0 3 * * *", "web").await;
    world.clock.advance(DAY);
    let (_, context) = told.next().await.expect("told");
    let traceparent = context.get("traceparent").expect("the event carries its trace");
    let trace = traceparent.split('-').nth(1).map(str::to_string);
    assert!(trace.is_some());
    assert_eq!(world.backup.traces(), [trace]);
}
