//! What should be and what is are brought together again; what is not ours is never touched.

use std::time::Duration;

use bus::Transport;
use chassis::Worker;
use contract::provisioner::*;
use contract::{ByteCount, OperationId, Realm, VmUuid};
use futures::{FutureExt, StreamExt};
use operation::new_id;
use provisioner::Limits;
use provisioner::adapters::simulated::{Fault, SimulatedCall};
use provisioner::ports::{Hypervisor, HypervisorErrorKind, VmMark, VmSpec};
use provisioner::workers::RowRestorer;
use provisioner_domain::PowerState;
use testkit::{eventually, eventually_some};

use crate::support::{ANSWER, CallHere, Running, WAIT_MAX, definition, limits, vm};

async fn get(running: &Running) -> Vm {
    running.bus.call(&GetVm { vm: vm("web") }, ANSWER).await.expect("it exists")
}

/// The reconciler has a round every 100 ms.
fn reconciling() -> Limits {
    let interval = Duration::from_millis(100);
    Limits { reconcile_interval: interval, host_report_interval: interval, ..limits() }
}

async fn with_web() -> Running {
    let running = Running::start_with(reconciling()).await;
    running.add_seed().await;
    running.create(definition("web")).await;
    running
}

async fn power(running: &Running, uuid: &VmUuid) -> PowerState {
    running.simulated.hypervisor.power(uuid).await.expect("an answer")
}

async fn eventually_in(running: &Running, state: VmState) -> Vm {
    eventually_some(&format!("it is {state}"), WAIT_MAX, async || {
        let now = get(running).await;
        (now.state == state && now.locked_by.is_none()).then_some(now)
    })
    .await
}

async fn start(running: &Running) -> StartedVm {
    let report = running.run(StartVm { vm: vm("web"), operation_id: None }).await;
    serde_json::from_value(report.output.expect("an output")).expect("a started VM")
}

#[actix::test]
async fn a_vm_that_went_off_by_itself_is_started_again() {
    let running = with_web().await;
    let before = get(&running).await;
    running.simulated.hypervisor.destroy(&before.uuid).await.expect("off");
    eventually("it is ready again", async || {
        let now = get(&running).await;
        let is_ready = now.state == VmState::Ready && now.locked_by.is_none();
        is_ready && power(&running, &before.uuid).await == PowerState::Running
    })
    .await;
    assert_eq!(get(&running).await, before);
}

#[actix::test]
async fn what_the_hypervisor_reports_is_seen_at_once() {
    // The reconciler comes at its start, and then only when it is woken.
    let running = Running::start().await;
    running.add_seed().await;
    running.create(definition("web")).await;
    let before = get(&running).await;
    running.simulated.hypervisor.send_events(true);
    running.simulated.hypervisor.pause(&before.uuid, PauseReason::User).expect("paused");
    eventually_in(&running, VmState::Paused).await;
    start(&running).await;
    running.simulated.hypervisor.destroy(&before.uuid).await.expect("off");
    eventually("it is started again", async || power(&running, &before.uuid).await == PowerState::Running)
        .await;
}

#[actix::test]
async fn while_the_hypervisor_is_away_the_state_of_a_vm_is_unknown_and_its_address_too() {
    let soon = Limits { unknown_after: Duration::from_millis(200), ..reconciling() };
    let running = Running::start_with(soon).await;
    running.add_seed().await;
    running.create(definition("web")).await;
    let before = get(&running).await;
    let away = Fault::Fail(u32::MAX, HypervisorErrorKind::Unavailable);
    running.simulated.faults.set(SimulatedCall::Marked, away);
    let unknown = eventually_in(&running, VmState::Unknown).await;
    assert_eq!(unknown.address, None);
    assert_ne!(running.problems().await, [""; 0]);
    running.simulated.faults.clear(SimulatedCall::Marked);
    assert_eq!(eventually_in(&running, VmState::Ready).await, before);
}

#[actix::test]
async fn a_vm_whose_disk_others_replaced_is_left_as_it_is_and_shown_with_what_to_do() {
    let running = with_web().await;
    let before = get(&running).await;
    let record = running.state.registry.vm(&vm("web")).await.expect("it exists");
    let hypervisor = &running.simulated.hypervisor;
    let file = running.state.disks.folder(record.name()).join("vda.qcow2");
    let overlay = file.with_extension("ext");
    hypervisor.replace_disk(&before.uuid, &overlay).expect("replaced");
    let problem = eventually_some("it says so", WAIT_MAX, async || get(&running).await.problem).await;
    assert!(problem.contains("virsh blockcommit"), "{problem}");
    assert_eq!(get(&running).await.state, VmState::Ready, "it runs on");

    hypervisor.destroy(&before.uuid).await.expect("off");
    eventually_in(&running, VmState::Stopped).await;
    tokio::time::sleep(reconciling().reconcile_interval * 4).await;
    assert_eq!(power(&running, &before.uuid).await, PowerState::Off, "it is not started");
    let refused = running.refused(StartVm { vm: vm("web"), operation_id: None }).await;
    assert!(refused.to_string().contains(&overlay.display().to_string()), "{refused}");
    assert!(matches!(refused, VmRefused::DisksChanged { .. }));
    let refused = running.refused(OpenDisks { vm: vm("web"), operation_id: new_id() }).await;
    assert!(matches!(refused, OpenDisksRefused::DisksChanged { .. }), "{refused}");
    let problems = running.problems().await;
    assert!(problems.iter().any(|problem| problem.starts_with("vms: VM web: ")), "{problems:?}");
    let disks = hypervisor.disks(&before.uuid).await.expect("an answer");
    assert_eq!(disks[0].path.as_ref(), Some(&overlay));

    // Undefined by somebody: with the file in its record it would not have what its guest wrote since.
    let definition = hypervisor.definition(&before.uuid).await.expect("an answer").expect("it is defined");
    hypervisor.undefine(&before.uuid).await.expect("undefined");
    eventually_in(&running, VmState::Missing).await;
    let refused = running.refused(StartVm { vm: vm("web"), operation_id: None }).await;
    assert!(matches!(refused, VmRefused::DisksChanged { .. }), "{refused}");
    hypervisor.restore_definition(&before.uuid, &definition).await.expect("defined again");

    hypervisor.replace_disk(&before.uuid, &file).expect("put back");
    assert_eq!(eventually_in(&running, VmState::Ready).await, before);
    assert_eq!(running.problems().await, [""; 0]);
}

#[actix::test]
async fn a_vm_that_the_hypervisor_does_not_know_is_missing_until_it_is_started() {
    let running = with_web().await;
    let before = get(&running).await;
    let hypervisor = &running.simulated.hypervisor;
    hypervisor.destroy(&before.uuid).await.expect("off");
    hypervisor.undefine(&before.uuid).await.expect("undefined");
    eventually_in(&running, VmState::Missing).await;
    assert_eq!(start(&running).await, StartedVm { vm: before.clone(), resumed_pause_reason: None });
    assert_eq!(get(&running).await, before);
}

#[actix::test]
async fn a_suspended_vm_is_shown_with_its_reason_and_an_alert_and_start_says_it_and_resumes() {
    let running = with_web().await;
    let before = get(&running).await;
    let mut alerts = running.bus.subscribe::<VmPaused>().await.expect("subscribed");
    for reason in [PauseReason::User, PauseReason::IoError] {
        running.simulated.hypervisor.pause(&before.uuid, reason).expect("paused");
        let paused = eventually_in(&running, VmState::Paused).await;
        assert_eq!((paused.pause_reason, paused.address), (Some(reason), before.address));
        let listed = running.bus.call(&ListVms {}, ANSWER).await.expect("a list");
        assert_eq!(listed[0].pause_reason, Some(reason));
        let (alert, _) = alerts.next().await.expect("an alert");
        let (host, uuid) = (before.host.clone(), before.uuid.clone());
        assert_eq!(alert, VmPaused { name: vm("web"), host, uuid, reason });
        // Several rounds of the reconciler leave it as it is.
        tokio::time::sleep(reconciling().reconcile_interval * 4).await;
        assert_eq!(get(&running).await, paused);
        assert_eq!(
            start(&running).await,
            StartedVm { vm: before.clone(), resumed_pause_reason: Some(reason) }
        );
        assert_eq!(power(&running, &before.uuid).await, PowerState::Running);
    }
    assert!(running.page("web").await.contains("simulated"));
}

#[actix::test]
async fn a_vm_that_cannot_be_resumed_stays_paused_and_the_operation_says_why() {
    let running = with_web().await;
    let before = get(&running).await;
    running.simulated.hypervisor.pause(&before.uuid, PauseReason::IoError).expect("paused");
    eventually_in(&running, VmState::Paused).await;
    running.simulated.faults.set(SimulatedCall::Resume, Fault::GuestUnresponsive);
    let command = StartVm { vm: vm("web"), operation_id: None };
    let reason = running.run_undone(command).await;
    assert!(reason.contains("paused: I/O error of a disk"), "{reason}");
    let now = eventually_in(&running, VmState::Paused).await;
    assert_eq!(now.pause_reason, Some(PauseReason::IoError));
}

#[actix::test]
async fn a_vm_paused_for_lack_of_space_runs_again_by_itself_once_there_is_room() {
    let too_much = ByteCount(u64::MAX);
    let full = Limits { free_space_low: too_much, free_space_to_resume: too_much, ..reconciling() };
    let running = with_web().await.restart_with(full).await;
    let before = get(&running).await;
    running.simulated.hypervisor.pause(&before.uuid, PauseReason::NoSpace).expect("paused");
    let paused = eventually_in(&running, VmState::Paused).await;
    assert_eq!(paused.pause_reason, Some(PauseReason::NoSpace));
    tokio::time::sleep(reconciling().reconcile_interval * 4).await;
    assert_eq!(power(&running, &before.uuid).await, PowerState::Paused(PauseReason::NoSpace), "no room");

    let running = running.restart_with(reconciling()).await;
    assert_eq!(eventually_in(&running, VmState::Ready).await.pause_reason, None);
    assert_eq!(power(&running, &before.uuid).await, PowerState::Running);

    // Paused again at once: the next attempt comes later, not in the next round.
    running.simulated.hypervisor.pause(&before.uuid, PauseReason::NoSpace).expect("paused");
    eventually_in(&running, VmState::Paused).await;
    tokio::time::sleep(reconciling().reconcile_interval * 4).await;
    assert_eq!(get(&running).await.state, VmState::Paused);
}

#[actix::test]
async fn a_paused_vm_is_stopped_and_its_disks_are_read() {
    let running = with_web().await;
    let before = get(&running).await;
    running.simulated.hypervisor.pause(&before.uuid, PauseReason::NoSpace).expect("paused");
    running.simulated.faults.set(SimulatedCall::Resume, Fault::GuestUnresponsive);
    eventually_in(&running, VmState::Paused).await;
    let operation_id = new_id();
    let open = OpenDisks { vm: vm("web"), operation_id: operation_id.clone() };
    let opened = running.bus.call_here(&open, ANSWER).await.expect("opened");
    assert_eq!(opened.consistency, Consistency::Crash);
    running.bus.call_here(&CloseDisks { operation_id }, ANSWER).await.expect("closed");
    running.run(StopVm { vm: vm("web"), operation_id: None }).await;
    eventually_in(&running, VmState::Stopped).await;
}

fn spec(name: &str, uuid: &str, operation: &OperationId) -> VmSpec {
    VmSpec {
        name: name.into(),
        uuid: uuid.parse().expect("a UUID"),
        mac: "52:54:00:00:00:01".parse().expect("a MAC address"),
        cpu_count: 1,
        ram_size: ByteCount::mib(64),
        disks: Vec::new(),
        nocloud_volume: "/nowhere".into(),
        console_log: "/nowhere".into(),
        simulated_ports: Vec::new(),
        mark: VmMark {
            realm: Realm::default(),
            vm: vm(name),
            cloud_init_generation: 1,
            operation: operation.clone(),
        },
    }
}

#[actix::test]
async fn only_what_an_undone_operation_of_ours_left_is_removed() {
    let running = with_web().await;
    // An operation of ours that ended undone.
    running.simulated.faults.set(SimulatedCall::Address, Fault::GuestUnresponsive);
    let id = new_id();
    let create = CreateVm {
        definition: definition("half"),
        host: None,
        overcommit: false,
        operation_id: Some(id.clone()),
    };
    running.bus.call(&create, ANSWER).await.expect("begun");
    running.undone(&id).await;
    running.simulated.faults.clear(SimulatedCall::Address);

    let hypervisor = &running.simulated.hypervisor;
    let ours = spec("orphan", "00000000-0000-4000-8000-000000000001", &id);
    let unknown = spec("unknown", "00000000-0000-4000-8000-000000000002", &new_id());
    hypervisor.define(&unknown).await.expect("defined");
    hypervisor.start(&unknown.uuid).await.expect("started");
    hypervisor.define(&ours).await.expect("defined");
    hypervisor.start(&ours.uuid).await.expect("started");
    eventually("the orphan is gone", async || power(&running, &ours.uuid).await == PowerState::Missing).await;
    assert_eq!(power(&running, &unknown.uuid).await, PowerState::Running);
    let listed = UnclaimedVm { name: vm("unknown"), uuid: unknown.uuid.clone() };
    eventually("the other is listed as unclaimed", async || {
        let hosts = running.bus.call(&ListHosts {}, ANSWER).await.expect("an answer");
        hosts.iter().any(|host| host.unclaimed == [listed.clone()])
    })
    .await;
}

#[actix::test]
async fn rows_are_written_again_although_a_round_failed_or_was_cut_off() {
    let running = with_web().await;
    let table = contract::bucket::VMS;
    let mut restorer = RowRestorer::new(&running.bus, running.state.registry.clone());
    running.bus.check_table(&table).await.expect("there");
    running.transport.lose_table(table.name);
    running.bus.check_table(&table).await.expect("there again");
    running.transport.cut();
    assert!(restorer.round().now_or_never().is_none(), "it waits for the registry, and is cut off");
    restorer.round().await.expect_err("the bus is away");
    running.transport.mend();
    restorer.round().await.expect("written");
    let rows = running.transport.read_page(table.name, "", 0).await.expect("read").rows;
    assert_eq!(rows.len(), 1);
}

#[actix::test]
async fn rows_that_were_lost_with_their_table_are_written_again_and_changed_on() {
    let running = with_web().await;
    let tables = [contract::bucket::VMS, contract::bucket::SEEDS];
    for table in tables {
        running.bus.check_table(&table).await.expect("there");
        running.transport.lose_table(table.name);
    }
    // The VM can be changed before anybody notices the loss, and after.
    running.run(StopVm { vm: vm("web"), operation_id: None }).await;
    for table in tables {
        running.bus.check_table(&table).await.expect("there again");
    }
    eventually("seeds are there again", async || {
        let rows = running.transport.read_page(contract::bucket::SEEDS.name, "", 0).await.expect("read");
        rows.rows.len() == 1
    })
    .await;
    start(&running).await;
    running.run(RemoveVm { vm: vm("web"), operation_id: None }).await;
    let rows = running.transport.read_page(contract::bucket::VMS.name, "", 0).await.expect("read").rows;
    assert!(rows.is_empty(), "{rows:?}");
}

#[actix::test]
async fn a_network_that_cannot_be_prepared_is_named_in_health_until_it_is() {
    let running = with_web().await;
    running.simulated.faults.set(SimulatedCall::Prepare, Fault::Fail(u32::MAX, HypervisorErrorKind::Failed));
    let problems = running.problems().await;
    assert!(problems.iter().any(|problem| problem.starts_with("network: ")), "{problems:?}");
    running.simulated.faults.clear(SimulatedCall::Prepare);
    assert_eq!(running.problems().await, [""; 0]);
}

#[actix::test]
async fn what_a_removal_set_aside_is_discarded() {
    let running = with_web().await;
    running.run(RemoveVm { vm: vm("web"), operation_id: None }).await;
    let aside = running.simulated.state.join("aside");
    eventually_some("it is discarded", WAIT_MAX, async || {
        (std::fs::read_dir(&aside).expect("a folder").count() == 0).then_some(())
    })
    .await;
}

#[actix::test]
async fn while_the_row_of_a_vm_cannot_be_read_nothing_is_taken_for_left_over() {
    let running = with_web().await;
    let web = get(&running).await.uuid;
    running.simulated.faults.set(SimulatedCall::Address, Fault::GuestUnresponsive);
    let id = new_id();
    let create = CreateVm {
        definition: definition("half"),
        host: None,
        overcommit: false,
        operation_id: Some(id.clone()),
    };
    running.bus.call(&create, ANSWER).await.expect("begun");
    running.undone(&id).await;
    running.simulated.faults.clear(SimulatedCall::Address);

    let (transport, table) = (running.transport.clone(), contract::bucket::VMS.name);
    let key = format!("h1.{web}");
    let row = transport.get(table, &key).await.expect("read").expect("there");
    let later = [&[0x92, 9], &row.value[2..]].concat();
    transport.put(table, &key, later.into(), row.revision).await.expect("written");
    let running = running.restart().await;
    let ours = spec("orphan", "00000000-0000-4000-8000-000000000001", &id);
    running.simulated.hypervisor.define(&ours).await.expect("defined");
    running.simulated.hypervisor.start(&ours.uuid).await.expect("started");
    tokio::time::sleep(reconciling().reconcile_interval * 8).await;
    assert_eq!(power(&running, &ours.uuid).await, PowerState::Running, "it may be the one of the row");
    assert_eq!(power(&running, &web).await, PowerState::Running);
    for command in [create.definition.clone(), definition("web")] {
        let is_web = command.name == vm("web");
        let created = running
            .bus
            .call(
                &CreateVm { definition: command, host: None, overcommit: false, operation_id: None },
                ANSWER,
            )
            .await;
        assert_eq!(created.is_err(), is_web, "{created:?}");
    }

    // Another process wrote it as this version can read it.
    let stored = transport.get(table, &key).await.expect("read").expect("there");
    transport.put(table, &key, row.value, stored.revision).await.expect("written");
    let running = running.restart().await;
    eventually("the orphan is gone", async || power(&running, &ours.uuid).await == PowerState::Missing).await;
    assert_eq!(get(&running).await.uuid, web);
}
