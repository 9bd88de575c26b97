//! Starts a machine that is off, or unknown to the hypervisor though its disks are here.

use contract::VmName;
use operation::{Context, Work};
use provisioner_domain::{VmTransition, VmRecord, WorkKind};
use saga::{Step, StepFuture, Trail, output};

use super::create_vm::settle_ready;
use super::machine::machine_of;
use super::ready::{Ready, wait_ready};
use super::{DEED, HYPERVISOR_PATIENCE, MOMENT, READY_LIMIT, ServiceState, of_hypervisor, of_registry, own_record};
use crate::ports::Power;

/// The saga.
pub struct StartVmWork;

type Here = Context<ServiceState, VmName>;

impl Work for StartVmWork {
    const KIND: &'static str = "start_vm";
    type ServiceState = ServiceState;
    type Input = VmName;

    fn about(vm: &VmName) -> String {
        vm.to_string()
    }

    fn steps() -> Vec<Step<Here>> {
        vec![
            Step::new("lock", MOMENT, lock).undone_by(unlock),
            Step::new("start", DEED, start).undone_by(destroy).with_patience(HYPERVISOR_PATIENCE),
            Step::new("ready", READY_LIMIT, ready),
            Step::new("finish", MOMENT, finish).undone_by(unfinish),
        ]
    }
}

fn lock<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let begin = VmTransition::Begin(here.id.clone(), WorkKind::Starting);
        let locked = here.state.registry.make(&here.input, begin);
        output(&locked.await.map_err(of_registry)?)
    })
}

fn unlock<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        if own_record(here, &here.input).await?.is_some() {
            let given_up = VmTransition::GiveUp(here.id.clone());
            let given_up = here.state.registry.make(&here.input, given_up);
            given_up.await.map_err(of_registry)?;
        }
        output(&())
    })
}

fn start<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let record: VmRecord = trail.of("lock")?;
        let state = &here.state;
        let uuid = &record.identity.uuid;
        let power = state.hypervisor.power(uuid).await.map_err(of_hypervisor)?;
        if power != Some(Power::Running) {
            // Also where it is known: what it was defined as may be older than its record.
            let machine = machine_of(&record, &state.realm, &here.id, state.disks.as_ref());
            state.hypervisor.define(&machine).await.map_err(of_hypervisor)?;
            state.hypervisor.start(uuid).await.map_err(of_hypervisor)?;
        }
        output(&())
    })
}

fn destroy<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        if let Some(record) = trail.if_done::<VmRecord>("lock") {
            let destroyed = here.state.hypervisor.destroy(&record.identity.uuid);
            destroyed.await.map_err(of_hypervisor)?;
        }
        output(&())
    })
}

fn ready<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let record: VmRecord = trail.of("lock")?;
        output(&wait_ready(&here.state, &record, &here.cancel).await?)
    })
}

fn finish<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let ready: Ready = trail.of("ready")?;
        output(&settle_ready(here, &here.input, ready).await?)
    })
}

fn unfinish<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        if own_record(here, &here.input).await?.is_some() {
            let locked: VmRecord = trail.of("lock")?;
            let unsettled = VmTransition::Unsettle(here.id.clone(), locked.phase);
            let unsettled = here.state.registry.make(&here.input, unsettled);
            unsettled.await.map_err(of_registry)?;
        }
        output(&())
    })
}
