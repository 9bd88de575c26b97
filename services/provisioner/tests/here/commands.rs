//! What commands and queries promise.

use contract::operation::BegunOperation;
use contract::provisioner::*;
use contract::{ByteCount, OperationId};
use futures::StreamExt;
use operation::new_id;
use provisioner::adapters::simulated::{Fault, SimulatedCall};
use provisioner::ports::{Hypervisor, HypervisorErrorKind};
use provisioner_domain::{HostCapacity, PowerState};
use testkit::eventually;

use crate::support::{ANSWER, Running, definition, script, seed_name, vm};

async fn get(running: &Running, name: &str) -> Vm {
    running.bus.call(&GetVm { vm: vm(name) }, ANSWER).await.expect("it exists")
}

#[actix::test]
async fn a_vm_is_created_stopped_started_and_removed() {
    let running = Running::start().await;
    running.add_seed().await;
    let mut changes = running.bus.subscribe::<VmChanged>().await.expect("subscribed");

    let mut wanted = definition("web");
    wanted.install = vec![script("install.sh", "#!/bin/sh\necho hello\n")];
    let report = running.create(wanted).await;
    let created: Vm = serde_json::from_value(report.output.expect("the VM")).expect("read");
    assert_eq!((created.state, created.hypervisor.as_str()), (VmState::Ready, "simulated"));
    assert!(
        running.simulated.hypervisor.is_flushed(&created.uuid),
        "a power cut would lose what its scripts wrote"
    );
    let listed = running.bus.call(&ListVms {}, ANSWER).await.expect("a list");
    assert_eq!(listed, [created]);
    let page = running.page("web").await;
    assert!(page.contains("simulated") && page.contains("install.sh"), "{page}");

    running.run(StopVm { vm: vm("web"), operation_id: None }).await;
    let stopped = get(&running, "web").await;
    assert_eq!((stopped.state, stopped.address), (VmState::Stopped, None));

    running.run(StartVm { vm: vm("web"), operation_id: None }).await;
    assert_eq!(get(&running, "web").await.state, VmState::Ready);
    assert!(running.page("web").await.contains("install.sh"));

    running.run(RemoveVm { vm: vm("web"), operation_id: None }).await;
    assert_eq!(running.bus.call(&ListVms {}, ANSWER).await.expect("a list"), []);
    assert!(!running.simulated.state.join("vms/web").exists());
    let marked = running.simulated.hypervisor.marked(&running.state.realm).await.expect("a list");
    assert_eq!(marked, []);

    let mut states = Vec::new();
    while states.last() != Some(&None) {
        let (event, _) = changes.next().await.expect("more");
        states.push(event.vm.map(|vm| vm.state));
    }
    states.dedup();
    use VmState::{Creating, Ready, Removing, Starting, Stopped, Stopping};
    let expected = [Creating, Ready, Stopping, Stopped, Starting, Ready, Removing].map(Some);
    assert_eq!(states[..states.len() - 1], expected);
}

/// The disks are those of a VM that was created, and of one whose NoCloud volume an earlier attempt had half written.
#[actix::test]
async fn nobody_but_qemu_reads_the_disks_of_a_vm() {
    use std::os::unix::fs::PermissionsExt;
    let running = Running::start().await;
    running.add_seed().await;
    let folder = running.simulated.state.join("vms/web");
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("nocloud.part"), "half").expect("written");
    running.create(definition("web")).await;
    for file in ["vda.qcow2", "nocloud.img"] {
        let about = std::fs::metadata(folder.join(file)).expect("it exists");
        assert_eq!(about.permissions().mode() & 0o777, 0o600, "{file}");
    }
}

#[actix::test]
async fn the_same_command_twice_has_one_effect_and_two_equal_answers() {
    let running = Running::start().await;
    running.add_seed().await;
    let id = new_id();
    let asked = CreateVm {
        definition: definition("web"),
        host: None,
        overcommit: false,
        operation_id: Some(id.clone()),
    };
    assert_eq!(running.bus.call(&asked, ANSWER).await.expect("begun"), BegunOperation::Begun(id.clone()));
    assert_eq!(
        running.bus.call(&asked, ANSWER).await.expect("known"),
        BegunOperation::AlreadyBegun(id.clone())
    );
    running.done(&id).await;
    assert_eq!(
        running.bus.call(&asked, ANSWER).await.expect("known for ever"),
        BegunOperation::AlreadyBegun(id.clone())
    );
    let other = CreateVm {
        definition: definition("other"),
        host: None,
        overcommit: false,
        operation_id: Some(id.clone()),
    };
    let refused = running.refused(other).await;
    assert_eq!(refused, CreateVmRefused::IdReused(id));
}

#[actix::test]
async fn a_vm_that_cannot_be_created_is_refused_before_anything_is_touched() {
    let running = Running::start().await;
    let create = async |definition| {
        running.refused(CreateVm { definition, host: None, overcommit: false, operation_id: None }).await
    };
    assert_eq!(create(definition("web")).await, CreateVmRefused::UnknownSeed(seed_name()));
    running.add_seed().await;
    running.create(definition("web")).await;
    assert_eq!(create(definition("web")).await, CreateVmRefused::NameTaken(vm("web")));
    let mut small = definition("small");
    small.disk_size = ByteCount((16 << 20) - 1);
    assert!(
        matches!(create(small).await, CreateVmRefused::InvalidField { field, .. } if field == "disk_size")
    );
    let mut thief = definition("thief");
    thief.domains = definition("web").domains;
    assert_eq!(
        create(thief).await,
        CreateVmRefused::HttpDomainTaken { domain: "web.example".parse().expect("a domain"), vm: vm("web") }
    );
    assert!(!running.simulated.state.join("vms/thief").exists());
}

#[actix::test]
async fn a_vm_that_does_not_fit_on_its_host_is_created_only_where_that_is_meant() {
    let running = Running::start().await;
    running.add_seed().await;
    let hypervisor = &running.simulated.hypervisor;
    hypervisor.set_capacity(HostCapacity { cpus: 2, memory: ByteCount::gib(1) });
    let with = |change: &dyn Fn(&mut VmDefinition)| {
        let mut definition = definition("big");
        change(&mut definition);
        CreateVm { definition, host: None, overcommit: false, operation_id: None }
    };
    for (asked, wrong) in [
        (with(&|vm| vm.ram_size = ByteCount::gib(1024)), "ram_size"),
        (with(&|vm| vm.cpu_count = 64), "cpu_count"),
        (with(&|vm| vm.disk_size = ByteCount::gib(64 * 1024)), "disk_size"),
    ] {
        let refused = running.refused(asked).await;
        assert!(
            matches!(&refused, CreateVmRefused::ExceedsHost { field, .. } if field == wrong),
            "{refused}"
        );
    }
    // What others use counts: the fourth of 256 MiB is too much beside a VM of 512 MiB.
    let mut half = definition("half");
    half.ram_size = ByteCount::mib(512);
    running.create(half).await;
    running.create(definition("third")).await;
    let fits = running.refused(with(&|vm| vm.ram_size = ByteCount::mib(257))).await;
    assert!(matches!(&fits, CreateVmRefused::ExceedsHost { field, .. } if field == "ram_size"), "{fits}");
    running.run(CreateVm { overcommit: true, ..with(&|vm| vm.ram_size = ByteCount::gib(2)) }).await;
}

#[actix::test]
async fn the_creation_of_a_vm_that_does_not_answer_is_undone_and_the_reason_says_how_far_it_came() {
    let running = Running::start().await;
    running.add_seed().await;
    for (call, text) in [
        (SimulatedCall::Address, "no DHCP lease"),
        (SimulatedCall::AgentAnswers, "guest agent is silent"),
        (SimulatedCall::Shell, "SSH at 127.77."),
    ] {
        running.simulated.faults.set(call, Fault::GuestUnresponsive);
        let asked =
            CreateVm { definition: definition("web"), host: None, overcommit: false, operation_id: None };
        let reason = running.run_undone(asked).await;
        assert!(reason.contains(text), "{reason}");
        running.simulated.faults.clear(call);
        assert_eq!(running.refused(GetVm { vm: vm("web") }).await, VmRefused::UnknownVm(vm("web")));
    }
    running.create(definition("web")).await;
}

#[actix::test]
async fn a_hypervisor_that_is_away_is_waited_for() {
    let running = Running::start().await;
    running.add_seed().await;
    running.simulated.faults.set(SimulatedCall::Define, Fault::Fail(2, HypervisorErrorKind::Unavailable));
    running.simulated.faults.set(SimulatedCall::Start, Fault::Fail(2, HypervisorErrorKind::Unavailable));
    running.create(definition("web")).await;
}

#[actix::test]
async fn a_guest_that_does_not_shut_down_is_ended_by_force() {
    let running = Running::start().await;
    running.add_seed().await;
    running.create(definition("web")).await;
    running.simulated.faults.set(SimulatedCall::RequestShutdown, Fault::GuestUnresponsive);
    running.run(StopVm { vm: vm("web"), operation_id: None }).await;
    assert_eq!(get(&running, "web").await.state, VmState::Stopped);
    let refused = running.refused(StopVm { vm: vm("web"), operation_id: None }).await;
    assert!(matches!(refused, VmRefused::AlreadyInState { .. }));
}

/// The reconciler does not come in this test.
#[actix::test]
async fn a_vm_that_stopped_running_a_moment_ago_is_started_at_once() {
    let running = Running::start().await;
    running.add_seed().await;
    running.create(definition("web")).await;
    let created = get(&running, "web").await;
    let hypervisor = &running.simulated.hypervisor;
    for reason in [Some(PauseReason::User), Some(PauseReason::NoSpace), None] {
        match reason {
            Some(reason) => hypervisor.pause(&created.uuid, reason).expect("paused"),
            None => hypervisor.destroy(&created.uuid).await.expect("off"),
        }
        assert_eq!(get(&running, "web").await.state, VmState::Ready, "nobody has looked yet");
        let report = running.run(StartVm { vm: vm("web"), operation_id: None }).await;
        let started: StartedVm = serde_json::from_value(report.output.expect("an output")).expect("read");
        assert_eq!((started.vm.state, started.resumed_pause_reason), (VmState::Ready, reason));
        assert_eq!(hypervisor.power(&created.uuid).await.expect("an answer"), PowerState::Running);
    }
    let refused = running.refused(StartVm { vm: vm("web"), operation_id: None }).await;
    assert!(matches!(refused, VmRefused::AlreadyInState { .. }), "{refused}");
}

#[actix::test]
async fn while_an_operation_is_at_work_another_is_refused_with_its_id() {
    let running = Running::start().await;
    running.add_seed().await;
    running.create(definition("web")).await;
    running.simulated.faults.set(SimulatedCall::RequestShutdown, Fault::Stall);
    let stop = StopVm { vm: vm("web"), operation_id: None };
    let begun = running.bus.call(&stop, ANSWER).await.expect("begun");
    let by: OperationId = begun.operation().clone();
    eventually("the VM is locked", async || get(&running, "web").await.locked_by.as_ref() == Some(&by)).await;
    let refused = running.refused(RemoveVm { vm: vm("web"), operation_id: None }).await;
    assert_eq!(refused, VmRefused::Locked { vm: vm("web"), by: by.clone() });
    running.simulated.faults.clear(SimulatedCall::RequestShutdown);
    running.done(&by).await;
}

#[actix::test]
async fn what_is_known_outlives_the_process() {
    let running = Running::start().await;
    running.add_seed().await;
    running.create(definition("web")).await;
    let before = get(&running, "web").await;
    let running = running.restart().await;
    // Its guest may have another address by now.
    let known = |vm: Vm| Vm { address: None, ..vm };
    assert_eq!(known(get(&running, "web").await), known(before));
    assert!(running.page("web").await.contains("simulated"));
}

#[actix::test]
async fn texts_that_are_too_long_are_refused() {
    let running = Running::start().await;
    running.add_seed().await;
    let mut huge = definition("huge");
    huge.env.insert("LONG".into(), "x".repeat(100 * 1024));
    let asked = CreateVm { definition: huge, host: None, overcommit: false, operation_id: None };
    let refused = running.refused(asked).await;
    assert!(matches!(refused, CreateVmRefused::InvalidField { field, .. } if field == "env"));
}

#[actix::test]
async fn while_the_bus_is_away_nothing_is_lost_and_afterwards_work_goes_on() {
    let running = Running::start().await;
    running.add_seed().await;
    running.simulated.faults.set(SimulatedCall::Define, Fault::Stall);
    let id = new_id();
    let asked = CreateVm {
        definition: definition("web"),
        host: None,
        overcommit: false,
        operation_id: Some(id.clone()),
    };
    running.bus.call(&asked, ANSWER).await.expect("begun");
    eventually("its name is reserved", async || {
        running.bus.call(&GetVm { vm: vm("web") }, ANSWER).await.is_ok()
    })
    .await;
    running.transport.cut();
    running.simulated.faults.clear(SimulatedCall::Define);
    let refused = running.bus.call(&ListVms {}, ANSWER).await;
    assert!(matches!(refused, Err(bus::CallError::Transport { .. })));
    running.transport.mend();
    running.done(&id).await;
}
