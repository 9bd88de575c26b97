//! What should be and what is come together again; what is not ours is never touched.

use contract::provisioner::{CreateVm, GetVm, RemoveVm, StartVm, Vm, VmState};
use operation::new_id;
use provisioner::adapters::simulated::{Call, Fault};
use provisioner::ports::{Hypervisor, Machine, VmMark};
use testkit::{eventually, eventually_some};

use crate::support::{ANSWER, Running, WAIT_MAX, definition, vm};

async fn get(running: &Running) -> Vm {
    running.bus.call(&GetVm { vm: vm("web") }, ANSWER).await.expect("there")
}

async fn with_web() -> Running {
    let running = Running::start().await;
    running.add_seed().await;
    running.create(definition("web")).await;
    running.house.reconcile();
    running
}

#[actix::test]
async fn a_machine_that_went_off_by_itself_is_started_again() {
    let running = with_web().await;
    let before = get(&running).await;
    running.simulated.hypervisor.destroy(&before.uuid).await.expect("off");
    eventually("it is ready again", async || {
        let now = get(&running).await;
        now.state == VmState::Ready && now.locked_by.is_none() && {
            let power = running.simulated.hypervisor.power(&before.uuid).await;
            power == Ok(Some(provisioner::ports::Power::Running))
        }
    })
    .await;
    assert_eq!(get(&running).await, before);
}

#[actix::test]
async fn a_machine_that_the_hypervisor_forgot_is_missing_until_it_is_started() {
    let running = with_web().await;
    let before = get(&running).await;
    let hypervisor = &running.simulated.hypervisor;
    hypervisor.destroy(&before.uuid).await.expect("off");
    hypervisor.undefine(&before.uuid).await.expect("forgotten");
    eventually("it is missing", async || {
        let now = get(&running).await;
        now.state == VmState::Missing && now.locked_by.is_none()
    })
    .await;
    let start = StartVm { vm: vm("web"), operation_id: None };
    let begun = running.bus.call(&start, ANSWER).await.expect("begun");
    running.done(begun.operation()).await;
    assert_eq!(get(&running).await, before);
}

fn machine(name: &str, uuid: &str, operation: &str) -> Machine {
    Machine {
        name: name.into(),
        uuid: uuid.into(),
        mac: "52:54:00:00:00:01".into(),
        cpu_count: 1,
        ram_size: contract::ByteCount::mib(64),
        disks: Vec::new(),
        nocloud: "/nowhere".into(),
        console_log: "/nowhere".into(),
        served_ports: Vec::new(),
        mark: VmMark { realm: "loam".into(), vm: name.into(), generation: 1, operation: operation.into() },
    }
}

#[actix::test]
async fn only_what_an_undone_operation_of_ours_left_is_removed() {
    let running = with_web().await;
    // An operation of ours that ended undone.
    running.simulated.faults.set(Call::Address, Fault::Deaf);
    let id = new_id();
    let create = CreateVm { definition: definition("half"), operation_id: Some(id.clone()) };
    running.bus.call(&create, ANSWER).await.expect("begun");
    running.undone(&id).await;
    running.simulated.faults.mend(Call::Address);

    let hypervisor = &running.simulated.hypervisor;
    let ours = machine("orphan", "00000000-0000-4000-8000-000000000001", id.as_str());
    let unknown = new_id().to_string();
    let strange = machine("strange", "00000000-0000-4000-8000-000000000002", &unknown);
    hypervisor.define(&strange).await.expect("defined");
    hypervisor.start(&strange.uuid).await.expect("started");
    hypervisor.define(&ours).await.expect("defined");
    hypervisor.start(&ours.uuid).await.expect("started");
    eventually("the orphan is gone", async || hypervisor.power(&ours.uuid).await == Ok(None)).await;
    let left = hypervisor.power(&strange.uuid).await;
    assert_eq!(left, Ok(Some(provisioner::ports::Power::Running)));
}

#[actix::test]
async fn what_a_removal_set_aside_is_discarded() {
    let running = with_web().await;
    let remove = RemoveVm { vm: vm("web"), operation_id: None };
    let begun = running.bus.call(&remove, ANSWER).await.expect("begun");
    running.done(begun.operation()).await;
    let aside = running.simulated.state.join("aside");
    eventually_some("it is discarded", WAIT_MAX, async || {
        (std::fs::read_dir(&aside).expect("a folder").count() == 0).then_some(())
    })
    .await;
}
