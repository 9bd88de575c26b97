//! What happens when too much is asked, when the disk of the bus is full, and when a table is gone.

use std::fs::File;
use std::time::{Duration, Instant};

use bus::CallError;
use bus::Transport;
use contract::backup::ListBackups;
use contract::bucket::{self, KvBucket};
use contract::health::{CheckHealth, TABLE_WRITES};
use contract::message::FailureKind;
use contract::operation::ListOperations;
use contract::provisioner::{ListSeeds, ListVms, VmState};
use contract::scheduler::{AddSchedule, ListRuns, ListSchedules};
use contract::{ScheduleId, Service};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use system_tests::{CALL_MAX, Installation, InstallationOptions};
use testkit::{eventually, eventually_some};

use crate::provision::create_web;
use crate::rows::tables_of;

const REQUESTS: usize = 5000;

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_requests_at_once_are_answered_in_bounded_memory() {
    let installation = Installation::simulated().await;
    let pid = installation.process(Service::Provisioner).await.pid.expect("it runs");
    let before = memory_mib(pid);
    let started = Instant::now();
    let mut calls: FuturesUnordered<_> = (0..REQUESTS)
        .map(|_| async { installation.bus().call(&ListSeeds {}, Duration::from_secs(60)).await })
        .collect();
    let (mut answered, mut busy) = (0, 0);
    while let Some(outcome) = calls.next().await {
        match outcome {
            Ok(_) => answered += 1,
            Err(CallError::Failed(failure)) if failure.kind == FailureKind::Busy => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    println!("{answered} answered, {busy} busy, after {:?}", started.elapsed());
    assert!(answered > REQUESTS / 2, "callers that are refused as busy ask again: {answered}");
    assert!(memory_mib(pid) < before + 150, "{} MiB before, {} MiB after", before, memory_mib(pid));
    assert!(installation.ask_at(Service::Provisioner, CheckHealth {}).await.is_healthy());
}

/// Resident memory of a process.
fn memory_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("there is one");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
}

fn schedule(id: &str) -> AddSchedule {
    serde_json::from_value(serde_json::json!({ "schedule": {
        "id": id, "cron": "0 3 * * *", "time_zone": "UTC",
        "command": { "service": "backup", "command": "start_backup", "body": { "vm": "web" } },
    }}))
    .expect("a schedule")
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_gone_are_made_again_and_what_was_known_is_written_again() {
    let installation = Installation::simulated().await;
    create_web(&installation).await;
    installation.ask(schedule("nightly")).await;
    let streams = installation.state().join("nats/data/jetstream");
    installation.while_the_bus_is_down(|| std::fs::remove_dir_all(&streams).expect("removed"));
    eventually_some("the schedule is there again", Duration::from_secs(120), async || {
        let schedules = installation.bus().call(&ListSchedules {}, CALL_MAX).await.ok()?;
        schedules.iter().any(|status| status.schedule.id.as_str() == "nightly").then_some(())
    })
    .await;
    installation.ready().await;
    let rows = tables_of(&installation, Service::Provisioner).await;
    eventually("rows of VMs and seeds are written again", async || {
        let count =
            async |table: KvBucket| rows.read_page(table.name, "", 0).await.map_or(0, |page| page.rows.len());
        count(bucket::VMS).await == 1 && count(bucket::SEEDS).await == 1
    })
    .await;
    // A new process reads them, and goes on with them.
    let provisioner_lists = async || {
        let vms = installation.ask(ListVms {}).await;
        let seeds = installation.ask(ListSeeds {}).await;
        (vms.into_iter().map(|vm| vm.state).collect::<Vec<_>>(), seeds.len())
    };
    assert_eq!(provisioner_lists().await, (vec![VmState::Ready], 1));
    installation.kill(Service::Provisioner).await;
    installation.ready().await;
    assert_eq!(provisioner_lists().await, (vec![VmState::Ready], 1));
    installation.loam_json(&["vm", "stop", "web"]);
    installation.loam_json(&["vm", "remove", "web"]);
    let id = ScheduleId::new("nightly").expect("valid");
    assert_eq!(installation.ask(ListRuns { id }).await.len(), 0);
    for service in Service::WITH_OPERATIONS {
        installation.ask_at(service, ListOperations::default()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_bus_is_shown_and_answered_and_ends_when_there_is_room() {
    let options = InstallationOptions { nats_disk_mib: Some(200), ..InstallationOptions::default() };
    let installation = Installation::start(options).await;
    let filler = installation.state().join("nats/filler");
    fill(&filler);
    // The pages that the server has begun still take some rows. Every request is answered: what only reads with a reply,
    // what writes with the reason.
    let mut number = 0;
    let failure = eventually_some("a write is refused", Duration::from_secs(60), async || {
        number += 1;
        match installation.bus().call(&schedule(&format!("n{number}")), CALL_MAX).await {
            Ok(_) => None,
            Err(CallError::Failed(failure)) => Some(failure),
            Err(error) => panic!("{error}"),
        }
    })
    .await;
    assert_eq!(failure.kind, FailureKind::Unavailable, "{failure:?}");
    installation.ask(ListBackups { vm: None }).await;
    let is_shown = async || {
        let health = installation.bus().call_at(Service::Scheduler, &CheckHealth {}, CALL_MAX).await.ok()?;
        health.parts.iter().find(|part| part.part == TABLE_WRITES)?.problem.clone()
    };
    eventually_some("health says that tables cannot be written", Duration::from_secs(60), is_shown).await;

    std::fs::remove_file(&filler).expect("removed");
    eventually_some("health is well again", Duration::from_secs(120), async || {
        is_shown().await.is_none().then_some(())
    })
    .await;
    installation.ready().await;
    installation.ask(schedule("nightly")).await;
    let listed = installation.ask(ListSchedules {}).await;
    assert_eq!(listed.len(), number, "what was answered is there, and what was refused is not");
}

/// Takes all the room of a file system.
fn fill(path: &std::path::Path) {
    use std::io::Write;
    let mut file = File::create(path).expect("made");
    for size in [1 << 20, 4096] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
}
