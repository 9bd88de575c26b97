//! Removes a machine with its disk.
//!
//! Nothing is destroyed for good here: the disks are set aside, and discarded once this operation is done. Until its
//! last step it can be undone, and the machine is as it was.

use contract::VmName;
use operation::{Context, Work};
use provisioner_domain::{VmTransition, VmRecord, WorkKind};
use saga::{Step, StepFuture, Trail, Trouble, output};

use super::machine::machine_of;
use super::stop_vm::was_running;
use super::{DEED, HYPERVISOR_PATIENCE, MOMENT, ServiceState, of_disks, of_hypervisor, of_registry, own_record};

/// The saga.
pub struct RemoveVmWork;

type Here = Context<ServiceState, VmName>;

impl Work for RemoveVmWork {
    const KIND: &'static str = "remove_vm";
    type ServiceState = ServiceState;
    type Input = VmName;

    fn about(vm: &VmName) -> String {
        vm.to_string()
    }

    fn steps() -> Vec<Step<Here>> {
        vec![
            Step::new("lock", MOMENT, lock).undone_by(unlock),
            Step::new("power_off", DEED, power_off).undone_by(start_again).with_patience(HYPERVISOR_PATIENCE),
            Step::new("undefine", DEED, undefine).undone_by(define_again).with_patience(HYPERVISOR_PATIENCE),
            Step::new("set_aside", MOMENT, set_aside).undone_by(bring_back),
            Step::new("forget", MOMENT, forget).undone_by(remember),
        ]
    }
}

fn lock<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let begin = VmTransition::Begin(here.id.clone(), WorkKind::Removing);
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

/// Its data go with it: there is nothing to write out, so the guest is not asked.
fn power_off<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let record: VmRecord = trail.of("lock")?;
        let destroyed = here.state.hypervisor.destroy(&record.identity.uuid);
        destroyed.await.map_err(of_hypervisor)?;
        output(&())
    })
}

fn start_again<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        if let Some(record) = trail.if_done::<VmRecord>("lock")
            && was_running(&record)
        {
            let started = here.state.hypervisor.start(&record.identity.uuid);
            started.await.map_err(of_hypervisor)?;
        }
        output(&())
    })
}

fn undefine<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let record: VmRecord = trail.of("lock")?;
        let undefined = here.state.hypervisor.undefine(&record.identity.uuid);
        undefined.await.map_err(of_hypervisor)?;
        output(&())
    })
}

fn define_again<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let record: VmRecord = trail.of("lock")?;
        let state = &here.state;
        let machine = machine_of(&record, &state.realm, &here.id, state.disks.as_ref());
        state.hypervisor.define(&machine).await.map_err(of_hypervisor)?;
        output(&())
    })
}

fn set_aside<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let aside = here.state.disks.set_aside(here.input.as_str(), here.id.as_str());
        aside.await.map_err(of_disks)?;
        output(&())
    })
}

fn bring_back<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let back = here.state.disks.bring_back(here.input.as_str(), here.id.as_str());
        back.await.map_err(of_disks)?;
        output(&())
    })
}

fn forget<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let forgotten = here.state.registry.forget(&here.input, &here.id);
        output(&forgotten.await.map_err(of_registry)?)
    })
}

fn remember<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let locked: VmRecord = trail.of("lock")?;
        match here.state.registry.remember(locked).await {
            Ok(_) => output(&()),
            Err(bus::Declined::Refused(_)) => {
                Err(Trouble::Final(format!("another vm {} was made meanwhile", here.input)))
            }
            Err(declined) => Err(of_registry(declined)),
        }
    })
}
