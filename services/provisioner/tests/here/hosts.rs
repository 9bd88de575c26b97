//! Several hosts on one bus: each provisioner manages the VMs of its own host, whichever receives a request.

use std::sync::Arc;
use std::time::Duration;

use bus::memory::MemoryTransport;
use bus::{Bus, CallError, Destination};
use contract::bucket;
use contract::message::{Caller, FailureKind};
use contract::operation::{CancelOperation, GetOperation, ListOperations, OperationReport, OperationState};
use contract::permissions::User;
use contract::provisioner::*;
use contract::{ByteCount, HostName, OperationId, Request, Service, VmName};
use operation::{new_id, wait_for_operation};
use provisioner::Limits;
use provisioner::adapters::simulated::{Fault, SimulatedCall};
use provisioner::ports::Hypervisor;
use provisioner_domain::name::RESERVED_FOR_RESTORE;
use provisioner_domain::{HostCapacity, HostRecord, NameRecord, PowerState, VmRecord};
use testkit::eventually;

use crate::support::{
    ANSWER, Running, Stopped, WAIT_MAX, bus_on, definition, limits, raw_image, reserve, row_keys, seed_name,
    vm,
};

/// Requests of a queue group go to another instance each time.
const TIMES: usize = 4;

fn host(name: &str) -> HostName {
    HostName::new(name).expect("a good name")
}

/// Hosts report and reconcile all the time.
fn busy_limits() -> Limits {
    Limits {
        reconcile_interval: Duration::from_millis(50),
        host_report_interval: Duration::from_millis(50),
        vm_ready_max: Duration::from_secs(60),
        ..limits()
    }
}

async fn start(name: &str, transport: &MemoryTransport) -> Running {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    Running::start_on(host(name), folder, transport.clone(), busy_limits(), row_keys(&[1])).await
}

/// Two hosts that know each other, each with the seed.
async fn two_hosts(transport: &MemoryTransport) -> [Running; 2] {
    let hosts = [start("h1", transport).await, start("h2", transport).await];
    for running in &hosts {
        eventually("they know each other", async || running.state.installation.hosts().len() == 2).await;
        add_seed(running).await;
    }
    hosts
}

async fn add_seed(running: &Running) {
    let (path, sha256) = raw_image(running.folder.path());
    let (host, from) = (Some(running.state.host.clone()), path.display().to_string());
    running.run(AddSeed { name: seed_name(), from, sha256, host, operation_id: None }).await;
}

fn create_on(at: &str, name: &str) -> CreateVm {
    let definition = definition(name);
    CreateVm { definition, host: Some(host(at)), overcommit: false, operation_id: None }
}

fn start_vm(name: &str) -> StartVm {
    StartVm { vm: vm(name), operation_id: None }
}

fn stop_vm(name: &str) -> StopVm {
    StopVm { vm: vm(name), operation_id: None }
}

async fn list(bus: &Bus) -> Vec<(String, String, VmState)> {
    let listed = bus.call(&ListVms {}, ANSWER).await.expect("a list");
    let row = |vm: Vm| (vm.definition.name.to_string(), vm.host.to_string(), vm.state);
    listed.into_iter().map(row).collect()
}

fn row(name: &str, host: &str, state: VmState) -> (String, String, VmState) {
    (name.into(), host.into(), state)
}

async fn names_of(running: &Running) -> Vec<VmName> {
    let marked = running.simulated.hypervisor.marked(&running.state.realm).await.expect("a list");
    marked.into_iter().map(|found| found.mark.vm).collect()
}

async fn ended(bus: &Bus, id: &OperationId) -> OperationReport {
    let ended = wait_for_operation(bus, Service::Provisioner, id, WAIT_MAX, |_| {}).await;
    let report = ended.expect("an outcome");
    assert_eq!(report.state, OperationState::Done, "{report:?}");
    report
}

async fn failure<R: Request>(bus: &Bus, request: R) -> String {
    match bus.call(&request, ANSWER).await {
        Err(CallError::Failed(failure)) => {
            assert_eq!(failure.kind, FailureKind::Unavailable, "{failure}");
            failure.message
        }
        Err(error) => panic!("not failed: {error:?}"),
        Ok(_) => panic!("{} was answered", R::NAME),
    }
}

/// As after a while without a report.
async fn is_silent(away: &Stopped, seen_by: &Running) {
    let table = seen_by.bus.table::<HostRecord>(bucket::HOSTS);
    let row = table.get(away.host.as_str()).await.expect("read").expect("reported");
    let long_ago = row.value.reported - Duration::from_secs(3600);
    let record = HostRecord { reported: long_ago, ..row.value };
    table.update(&row.key, &record, row.revision).await.expect("written");
    eventually("it is noticed", async || {
        seen_by.state.installation.hosts().iter().any(|host| host.reported == long_ago)
    })
    .await;
}

#[actix::test]
async fn each_provisioner_manages_the_vms_of_its_own_host_whichever_receives_a_request() {
    let transport = MemoryTransport::new();
    let [h1, h2] = two_hosts(&transport).await;
    let bus = &h1.bus;
    for (at, name) in [("h1", "web"), ("h2", "db")] {
        let report = h1.run(create_on(at, name)).await;
        assert_eq!(report.host, host(at));
    }
    let (web, db) = (row("web", "h1", VmState::Ready), row("db", "h2", VmState::Ready));
    for _ in 0..TIMES {
        assert_eq!(h1.run(stop_vm("db")).await.host, host("h2"));
        assert_eq!(h1.run(start_vm("db")).await.host, host("h2"));
        // Rounds of both reconcilers have gone by.
        assert_eq!(list(bus).await, [db.clone(), web.clone()]);
        let shown = bus.call(&GetVm { vm: vm("db") }, ANSWER).await.expect("it exists");
        assert_eq!(shown.host, host("h2"));
    }
    assert_eq!((names_of(&h1).await, names_of(&h2).await), (vec![vm("web")], vec![vm("db")]));
    let hosts = bus.call(&ListHosts {}, ANSWER).await.expect("a list");
    let shown: Vec<_> = hosts.iter().map(|host| (host.name.as_str(), host.state)).collect();
    assert_eq!(shown, [("h1", HostState::Ready), ("h2", HostState::Ready)]);
    let seeds = bus.call(&ListSeeds {}, ANSWER).await.expect("a list");
    assert_eq!(seeds.iter().map(|seed| seed.host.as_str()).collect::<Vec<_>>(), ["h1", "h2"]);
    for (name, running) in [("web", &h1), ("db", &h2)] {
        h1.run(RemoveVm { vm: vm(name), operation_id: None }).await;
        assert_eq!(names_of(running).await, []);
    }
    for running in [h1, h2] {
        running.stop().await;
    }
}

#[actix::test]
async fn a_restart_leaves_operations_vms_and_exports_of_the_other_host_alone() {
    let transport = MemoryTransport::new();
    let [h1, h2] = two_hosts(&transport).await;
    h2.run(create_on("h2", "db")).await;
    h2.run(stop_vm("db")).await;
    let reader = new_id();
    let at_h2 = || Destination::on(Service::Provisioner, &host("h2"));
    let open = OpenDisks { vm: vm("db"), operation_id: reader.clone() };
    h2.bus.call_at(at_h2(), &open, ANSWER).await.expect("opened");
    // It waits for its guest.
    h2.simulated.faults.set(SimulatedCall::Address, Fault::GuestUnresponsive);
    let begun = h2.bus.call(&create_on("h2", "slow"), ANSWER).await.expect("begun");
    let slow = begun.operation().clone();

    let h1 = h1.restart().await;
    let kept = h2.bus.call_at(at_h2(), &RenewDisks { operation_id: reader.clone() }, ANSWER).await;
    kept.expect("the exports of the other host are open");
    eventually("it goes on", async || names_of(&h2).await.contains(&vm("slow"))).await;
    assert!(!names_of(&h1).await.contains(&vm("slow")), "its operation is not taken over");
    // Whoever is asked, the host that drives it is the one to cancel it.
    for _ in 0..TIMES {
        h1.bus
            .call_at(Service::Provisioner, &CancelOperation { id: slow.clone() }, ANSWER)
            .await
            .expect("known");
    }
    h2.undone(&slow).await;
    let listed = h1.bus.call_at(Service::Provisioner, &ListOperations::default(), ANSWER).await;
    let of_h2 = listed.expect("a list").into_iter().filter(|report| report.host == host("h2")).count();
    assert!(of_h2 >= 3, "{of_h2}");
    h2.bus.call_at(at_h2(), &CloseDisks { operation_id: reader }, ANSWER).await.expect("closed");
    assert_eq!(list(&h1.bus).await, [row("db", "h2", VmState::Stopped)]);
}

#[actix::test]
async fn a_name_is_used_once_over_all_hosts() {
    let transport = MemoryTransport::new();
    let [h1, h2] = two_hosts(&transport).await;
    // At the same time: none is there when the other is checked.
    let (one, other) = (create_on("h1", "web"), create_on("h2", "web"));
    let (one, other) = tokio::join!(h1.bus.call(&one, ANSWER), h2.bus.call(&other, ANSWER));
    let mut done = 0;
    for begun in [one, other] {
        match begun {
            Ok(begun) => match h1.outcome(begun.operation()).await {
                report if report.state == OperationState::Done => done += 1,
                report => {
                    let reason = report.reason.expect("a reason");
                    assert!(reason.ends_with("there is a VM web already"), "{reason}");
                }
            },
            Err(error) => assert!(matches!(error, CallError::Refused(CreateVmRefused::NameTaken(_)))),
        }
    }
    assert_eq!((done, names_of(&h1).await.len() + names_of(&h2).await.len()), (1, 1));
    for _ in 0..TIMES {
        for at in ["h1", "h2"] {
            let refused = h1.refused(create_on(at, "web")).await;
            assert_eq!(refused, CreateVmRefused::NameTaken(vm("web")), "{at}");
        }
    }
    let mut twin = create_on("h1", "twin");
    twin.definition.domains = definition("web").domains;
    for at in ["h1", "h2"] {
        let refused = h1.refused(CreateVm { host: Some(host(at)), ..twin.clone() }).await;
        assert!(matches!(refused, CreateVmRefused::HttpDomainTaken { .. }), "{refused}");
    }
    h1.run(RemoveVm { vm: vm("web"), operation_id: None }).await;
    h1.run(create_on("h2", "web")).await;
    assert_eq!(names_of(&h2).await, [vm("web")]);
}

#[actix::test]
async fn a_reservation_that_a_crash_left_expires() {
    let transport = MemoryTransport::new();
    let [h1, h2] = two_hosts(&transport).await;
    let names = h1.bus.table::<NameRecord>(bucket::VM_NAMES);
    let reserved = |seconds: i64| NameRecord {
        host: host("h2"),
        uuid: "0b2d1b9e-5f0f-4e0b-8a4e-0d5f1b9e5f0f".parse().expect("a UUID"),
        by: new_id(),
        reserved_until: contract::Timestamp::from_timestamp(chrono::Utc::now().timestamp() + seconds, 0),
    };
    let revision = names.create("web", &reserved(600)).await.expect("written");
    assert_eq!(h1.refused(create_on("h1", "web")).await, CreateVmRefused::NameTaken(vm("web")));
    names.update("web", &reserved(-1), revision).await.expect("written");
    h1.run(create_on("h1", "web")).await;
    let held = names.get("web").await.expect("read").expect("there").value;
    assert_eq!((held.host, held.reserved_until), (host("h1"), None));
    drop(h2);
}

#[actix::test]
async fn vms_of_a_host_that_is_away_are_unreachable_until_it_is_back_or_they_are_forgotten() {
    let transport = MemoryTransport::new();
    let [h1, h2] = two_hosts(&transport).await;
    let bus = h1.bus.clone();
    h1.run(create_on("h1", "web")).await;
    h1.run(create_on("h2", "db")).await;

    let refused = bus.call(&RemoveHost { host: host("h2") }, ANSWER).await.expect_err("it reports");
    assert!(matches!(refused, CallError::Refused(RemoveHostRefused::Reporting(_))), "{refused}");
    let away = h2.stop().await;
    let message = failure(&bus, start_vm("db")).await;
    assert!(message.contains("the provisioner service of host h2 does not answer"), "{message}");
    is_silent(&away, &h1).await;
    let message = failure(&bus, start_vm("db")).await;
    assert!(message.starts_with("host h2 is unreachable since "), "{message}");
    failure(&bus, create_on("h2", "other")).await;
    let seen = [row("db", "h2", VmState::Unreachable), row("web", "h1", VmState::Ready)];
    assert_eq!(list(&bus).await, seen);
    let shown = bus.call(&GetVm { vm: vm("db") }, ANSWER).await.expect("it is known");
    assert_eq!(shown.state, VmState::Unreachable);

    let h2 = away.start(busy_limits()).await;
    eventually("it is back", async || list(&bus).await[0].2 == VmState::Ready).await;
    h1.run(stop_vm("db")).await;

    let forget = ForgetVm { host: host("h2"), vm: vm("db") };
    let refused = bus.call(&forget, ANSWER).await.expect_err("it is there");
    assert!(matches!(refused, CallError::Refused(ForgetVmRefused::NotRemoved(_))), "{refused}");
    let away = h2.stop().await;
    is_silent(&away, &h1).await;
    let removed = bus.call(&RemoveHost { host: host("h2") }, ANSWER).await.expect("removed");
    assert_eq!((removed.state, list(&bus).await), (HostState::Removed, seen.to_vec()));
    // It is no host to choose any more.
    h1.run(CreateVm { host: None, ..create_on("h1", "only") }).await;
    bus.call(&forget, ANSWER).await.expect("forgotten");
    assert_eq!(list(&bus).await.len(), 2);
    let hosts = bus.call(&ListHosts {}, ANSWER).await.expect("a list");
    assert_eq!(hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>(), ["h1"]);
    h1.run(create_on("h1", "db")).await;
    // A host that returns is there again; the VM that was forgotten is not touched.
    let h2 = away.start(busy_limits()).await;
    eventually("it is back", async || {
        h1.state.installation.hosts().iter().all(|host| host.removed.is_none())
    })
    .await;
    assert_eq!((names_of(&h2).await, list(&bus).await.len()), (vec![vm("db")], 3));
}

#[actix::test]
async fn with_several_hosts_a_new_vm_needs_one() {
    let transport = MemoryTransport::new();
    let [h1, h2] = two_hosts(&transport).await;
    for _ in 0..TIMES {
        let refused = h1.refused(CreateVm { host: None, ..create_on("h1", "web") }).await;
        let both = || vec![host("h1"), host("h2")];
        assert_eq!(refused, CreateVmRefused::Host(HostRefused::Required { hosts: both() }));
        let refused = h1.refused(create_on("h3", "web")).await;
        let unknown = HostRefused::UnknownHost { host: host("h3"), hosts: both() };
        assert_eq!(refused, CreateVmRefused::Host(unknown));
        let refused = h1.refused(RemoveSeed { name: seed_name(), host: None }).await;
        assert_eq!(refused, RemoveSeedRefused::Host(HostRefused::Required { hosts: both() }));
    }
    h1.bus.call(&RemoveSeed { name: seed_name(), host: Some(host("h2")) }, ANSWER).await.expect("removed");
    h1.bus.call(&RemoveSeed { name: seed_name(), host: None }, ANSWER).await.expect("the only one");
    drop(h2);
}

/// As on a bus with accounts: the caller is the person who asked, not the instance that passed the request on.
#[actix::test]
async fn an_operation_on_another_host_is_of_the_person_who_asked_for_it() {
    let transport = MemoryTransport::new();
    let provisioners = transport.as_user(User::Service(Service::Provisioner));
    let [h1, h2] = [start("h1", &provisioners).await, start("h2", &provisioners).await];
    let ada = bus_on(&transport.as_user(User::Person("ada".into())));
    for (at, running) in [("h1", &h1), ("h2", &h2)] {
        let states = [&h1, &h2].map(|running| &running.state.installation);
        eventually("they know each other", async || states.iter().all(|state| state.hosts().len() == 2))
            .await;
        let (path, sha256) = raw_image(running.folder.path());
        let from = path.display().to_string();
        let add = AddSeed { name: seed_name(), from, sha256, host: Some(host(at)), operation_id: None };
        let begun = ada.call(&add, ANSWER).await.expect("begun");
        ended(&ada, begun.operation()).await;
        for time in 0..TIMES {
            let create = create_on(at, &format!("{at}-{time}"));
            let begun = ada.call(&create, ANSWER).await.expect("begun");
            let report = ended(&ada, begun.operation()).await;
            assert_eq!((&report.host, report.caller.to_string().as_str()), (&host(at), "ada"));
            let shown = GetOperation { id: report.id.clone() };
            let shown = ada.call_at(Service::Provisioner, &shown, ANSWER).await.expect("known");
            assert!(matches!(shown.caller, Caller::Person { .. }));
        }
    }
    let running = h2.simulated.hypervisor.marked(&h2.state.realm).await.expect("a list");
    assert!(running.iter().all(|vm| vm.power == PowerState::Running) && running.len() == TIMES);
}

#[actix::test]
async fn a_name_that_was_reserved_for_a_restore_is_free_again_when_nobody_carries_it_on() {
    let running = Running::start_with(busy_limits()).await;
    let disks = vec![DiskSize { disk: "vda".parse().expect("a name"), size: ByteCount::mib(64) }];
    let (old, young) = (new_id(), new_id());
    reserve(&running.state, definition("old"), disks.clone(), old.clone()).await;
    reserve(&running.state, definition("young"), disks, young).await;
    let rows = running.bus.table::<VmRecord>(bucket::VMS);
    let record = running.state.registry.vm(&vm("old")).await.expect("reserved");
    let row = rows.get(&record.key()).await.expect("read").expect("written");
    let created = record.created - RESERVED_FOR_RESTORE;
    rows.update(&row.key, &VmRecord { created, ..row.value }, row.revision).await.expect("written");
    let running = running.restart().await;
    let names = running.bus.table::<NameRecord>(bucket::VM_NAMES);
    eventually("the name is free", async || names.get("old").await.expect("read").is_none()).await;
    assert!(running.state.registry.find(&vm("old")).await.expect("read").is_none());
    assert!(!running.simulated.state.join("vms/old").exists());
    assert!(running.state.registry.find(&vm("young")).await.expect("read").is_some());
}

#[actix::test]
async fn a_restore_that_does_not_fit_is_refused_unless_it_is_meant() {
    let running = Running::start().await;
    running.simulated.hypervisor.set_capacity(HostCapacity { cpus: 2, memory: ByteCount::gib(1) });
    let mut wanted = definition("copy");
    wanted.ram_size = ByteCount::gib(2);
    let disks = vec![DiskSize { disk: "vda".parse().expect("a name"), size: ByteCount::mib(64) }];
    let reserve =
        ReserveVmName { definition: wanted.clone(), disks, overcommit: false, operation_id: new_id() };
    let refused = running.refused(reserve.clone()).await;
    assert!(matches!(refused, CreateVmRefused::ExceedsHost { .. }), "{refused}");
    let at_host = || Destination::on(Service::Provisioner, &running.state.host);
    let meant = ReserveVmName { overcommit: true, ..reserve };
    running.bus.call_at(at_host(), &meant, ANSWER).await.expect("reserved");
    // What is reserved counts, and a repeated request is the same one.
    let again = ReserveVmName { overcommit: false, ..meant };
    running.bus.call_at(at_host(), &again, ANSWER).await.expect("reserved before");
    wanted.name = vm("next");
    wanted.ram_size = ByteCount::mib(256);
    let next = ReserveVmName { definition: wanted, operation_id: new_id(), ..again };
    assert!(matches!(running.refused(next).await, CreateVmRefused::ExceedsHost { .. }));
}
