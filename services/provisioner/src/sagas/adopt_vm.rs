//! Makes a machine of a reserved name whose disks a restore has written. Its scripts ran long ago and do not run
//! again; its NoCloud volume makes it somebody else than the machine it is a copy of.

use contract::VmName;
use contract::{OperationId, provisioner::AdoptVm};
use operation::{Context, Work};
use provisioner_domain::nocloud::documents;
use provisioner_domain::{VmTransition, VmRecord};
use saga::{Step, StepFuture, Trail, Trouble, output};
use serde::{Deserialize, Serialize};

use super::create_vm::settle_ready;
use super::machine::{disks_of, machine_of, nocloud_in};
use super::ready::{Ready, wait_ready};
use super::{
    DEED, HYPERVISOR_PATIENCE, MOMENT, READY_LIMIT, ServiceState, of_disks, of_hypervisor, of_registry, own_record,
};

/// The saga.
pub struct AdoptVmWork;

/// What it is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adoption {
    /// The reserved name.
    pub vm: VmName,
    /// For which operation it was reserved.
    pub reserved_by: OperationId,
}

impl From<&AdoptVm> for Adoption {
    fn from(asked: &AdoptVm) -> Adoption {
        Adoption { vm: asked.vm.clone(), reserved_by: asked.reserved_by.clone() }
    }
}

type Here = Context<ServiceState, Adoption>;

impl Work for AdoptVmWork {
    const KIND: &'static str = "adopt_vm";
    type ServiceState = ServiceState;
    type Input = Adoption;

    fn about(adoption: &Adoption) -> String {
        adoption.vm.to_string()
    }

    fn steps() -> Vec<Step<Here>> {
        vec![
            Step::new("take", MOMENT, take).undone_by(give_back),
            Step::new("volume", MOMENT, volume),
            Step::new("define", DEED, define).undone_by(undefine).with_patience(HYPERVISOR_PATIENCE),
            Step::new("start", DEED, start).undone_by(destroy).with_patience(HYPERVISOR_PATIENCE),
            Step::new("ready", READY_LIMIT, ready),
            Step::new("finish", MOMENT, finish).undone_by(unfinish),
        ]
    }
}

fn take<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let adopt = VmTransition::Adopt(here.id.clone(), here.input.reserved_by.clone());
        let taken = here.state.registry.make(&here.input.vm, adopt);
        let record = taken.await.map_err(of_registry)?;
        let disks = &here.state.disks;
        for disk in disks_of(&record, disks.as_ref()) {
            if !disks.exists(&disk.image.path).await.map_err(of_disks)? {
                return Err(Trouble::Final(format!("disk {} has not been written", disk.name)));
            }
        }
        output(&record)
    })
}

fn give_back<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        if own_record(here, &here.input.vm).await?.is_some() {
            let unadopt = VmTransition::Unadopt(here.id.clone());
            let given_back = here.state.registry.make(&here.input.vm, unadopt);
            given_back.await.map_err(of_registry)?;
        }
        output(&())
    })
}

/// It needs no undo: it lies among the disks, and goes with them.
fn volume<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let record: VmRecord = trail.of("take")?;
        let disks = &here.state.disks;
        let place = nocloud_in(&disks.folder(record.name().as_str()));
        let texts = documents(&record, here.state.shell.authorized_key());
        disks.write_nocloud(&place, &texts).await.map_err(of_disks)?;
        output(&())
    })
}

fn define<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let state = &here.state;
        let machine = machine_of(&trail.of("take")?, &state.realm, &here.id, state.disks.as_ref());
        state.hypervisor.define(&machine).await.map_err(of_hypervisor)?;
        output(&())
    })
}

fn undefine<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        if let Some(record) = trail.if_done::<VmRecord>("take") {
            let (hypervisor, uuid) = (&here.state.hypervisor, &record.identity.uuid);
            hypervisor.destroy(uuid).await.map_err(of_hypervisor)?;
            hypervisor.undefine(uuid).await.map_err(of_hypervisor)?;
        }
        output(&())
    })
}

fn start<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let record: VmRecord = trail.of("take")?;
        let started = here.state.hypervisor.start(&record.identity.uuid);
        started.await.map_err(of_hypervisor)?;
        output(&())
    })
}

fn destroy<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        if let Some(record) = trail.if_done::<VmRecord>("take") {
            let destroyed = here.state.hypervisor.destroy(&record.identity.uuid);
            destroyed.await.map_err(of_hypervisor)?;
        }
        output(&())
    })
}

fn ready<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let record: VmRecord = trail.of("take")?;
        output(&wait_ready(&here.state, &record, &here.cancel).await?)
    })
}

fn finish<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let ready: Ready = trail.of("ready")?;
        output(&settle_ready(here, &here.input.vm, ready).await?)
    })
}

fn unfinish<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        if own_record(here, &here.input.vm).await?.is_some() {
            let unmake = VmTransition::Unmake(here.id.clone(), Some(here.input.reserved_by.clone()));
            let unmade = here.state.registry.make(&here.input.vm, unmake);
            unmade.await.map_err(of_registry)?;
        }
        output(&())
    })
}
