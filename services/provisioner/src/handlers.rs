//! The request handlers, and the checks of durable commands.
//!
//! A check refuses what cannot be done now before an operation begins. It may be overtaken by another operation: then
//! the saga finds out, ends undone, and says why.

use std::sync::Arc;

use bus::{Call, Declined};
use contract::message::{Failure, NoRefusal};
use contract::provisioner::{
    AddSeed, AddSeedRefused, AdoptVm, AdoptVmRefused, CloseDisks, Closed, CreateVm, CreateVmRefused,
    DiskPath, GetVm, ListSeeds, ListVms, NotOpen, OpenDisks, OpenDisksRefused, OpenedDisks, ReleaseVm,
    Released, RemoveSeed, RemoveSeedRefused, RenewDisks, Renewed, ReserveVm, ReservedVm, Seed, Vm, VmRefused,
};
use operation::Candidate;
use provisioner_domain::{Phase, VmRecord, VmTransition};

use crate::actors::ExportKeeperHandle;
use crate::ports::DiskError;
use crate::sagas::{LocksVm, source_of};
use crate::state::ServiceState;
use crate::vm_spec::disks_of;

/// What request handlers share.
pub(crate) struct Handlers {
    pub(crate) state: Arc<ServiceState>,
    pub(crate) exports: ExportKeeperHandle,
}

fn unavailable(error: DiskError) -> Failure {
    Failure::unavailable(&error)
}

pub(crate) async fn check_add_seed(
    handlers: Arc<Handlers>,
    candidate: Candidate<AddSeed>,
) -> Result<(), Declined<AddSeedRefused>> {
    let AddSeed { name, from, sha256, .. } = candidate.command;
    if source_of(&from).is_none() {
        return Err(Declined::Refused(AddSeedRefused::NotASource(from)));
    }
    let inventory = handlers.state.registry.snapshot().await?;
    let added = inventory.add_seed(&name, &sha256.to_ascii_lowercase(), &candidate.id);
    added.map(drop).map_err(Declined::Refused)
}

pub(crate) async fn list_seeds(
    handlers: Arc<Handlers>,
    _: Call<ListSeeds>,
) -> Result<Vec<Seed>, Declined<NoRefusal>> {
    Ok(handlers.state.registry.snapshot().await?.seeds().cloned().collect())
}

pub(crate) async fn remove_seed(
    handlers: Arc<Handlers>,
    call: Call<RemoveSeed>,
) -> Result<Seed, Declined<RemoveSeedRefused>> {
    let (seed, is_needed) = handlers.state.registry.remove_seed(call.request.name).await?;
    if !is_needed {
        // The record is removed already; a file that stays is used when the same image is imported again.
        handlers.state.disks.remove_seed(&seed.sha256).await.map_err(unavailable)?;
    }
    Ok(seed)
}

pub(crate) async fn check_create_vm(
    handlers: Arc<Handlers>,
    candidate: Candidate<CreateVm>,
) -> Result<(), Declined<CreateVmRefused>> {
    let inventory = handlers.state.registry.snapshot().await?;
    inventory.may_create(&candidate.command.definition).map(drop).map_err(Declined::Refused)
}

/// Whether a command may lock its VM now.
pub(crate) async fn check_lock<C: LocksVm>(
    handlers: Arc<Handlers>,
    candidate: Candidate<C>,
) -> Result<(), Declined<VmRefused>> {
    let record = handlers.state.registry.vm(candidate.command.vm()).await?;
    let begin = VmTransition::Begin { by: candidate.id, kind: C::KIND };
    record.apply(begin).map(drop).map_err(Declined::Refused)
}

pub(crate) async fn list_vms(
    handlers: Arc<Handlers>,
    _: Call<ListVms>,
) -> Result<Vec<Vm>, Declined<NoRefusal>> {
    let inventory = handlers.state.registry.snapshot().await?;
    let hypervisor = handlers.state.hypervisor.info();
    let outline = |record: &VmRecord| record.outline(&hypervisor);
    Ok(inventory.vms().map(outline).collect())
}

pub(crate) async fn get_vm(handlers: Arc<Handlers>, call: Call<GetVm>) -> Result<Vm, Declined<VmRefused>> {
    let record = handlers.state.registry.vm(&call.request.vm).await?;
    Ok(record.view(&handlers.state.hypervisor.info()))
}

pub(crate) async fn open_disks(
    handlers: Arc<Handlers>,
    call: Call<OpenDisks>,
) -> Result<OpenedDisks, Declined<OpenDisksRefused>> {
    handlers.exports.open(call.request.vm, call.request.operation_id).await
}

pub(crate) async fn renew_disks(
    handlers: Arc<Handlers>,
    call: Call<RenewDisks>,
) -> Result<Renewed, Declined<NotOpen>> {
    handlers.exports.renew(call.request.operation_id).await
}

pub(crate) async fn close_disks(
    handlers: Arc<Handlers>,
    call: Call<CloseDisks>,
) -> Result<Closed, Declined<NoRefusal>> {
    handlers.exports.close(call.request.operation_id).await
}

pub(crate) async fn reserve_vm(
    handlers: Arc<Handlers>,
    call: Call<ReserveVm>,
) -> Result<ReservedVm, Declined<CreateVmRefused>> {
    let ReserveVm { definition, disks, operation_id } = call.request;
    let state = &handlers.state;
    let record = state.registry.reserve(definition, disks, operation_id).await?;
    state.disks.create_folder(record.name()).await.map_err(unavailable)?;
    let disks = disks_of(&record, state.disks.as_ref()).into_iter();
    let disks = disks.map(|disk| DiskPath { disk: disk.name, path: disk.image.path }).collect();
    Ok(ReservedVm { host: record.host, disks })
}

pub(crate) async fn release_vm(
    handlers: Arc<Handlers>,
    call: Call<ReleaseVm>,
) -> Result<Released, Declined<NoRefusal>> {
    let ReleaseVm { vm, operation_id } = call.request;
    let state = &handlers.state;
    let is_reserved = |record: VmRecord| matches!(record.phase, Phase::Reserved { by } if by == operation_id);
    if !state.registry.find(&vm).await?.is_some_and(is_reserved) {
        return Ok(Released { was_reserved: false });
    }
    // The files first: until the name is free the folder cannot be another VM's.
    state.disks.erase(&vm).await.map_err(unavailable)?;
    match state.registry.forget(&vm, &operation_id).await {
        Ok(was_reserved) => Ok(Released { was_reserved }),
        Err(Declined::Refused(_)) => Ok(Released { was_reserved: false }),
        Err(Declined::Failed(failure)) => Err(failure.into()),
    }
}

pub(crate) async fn check_adopt_vm(
    handlers: Arc<Handlers>,
    candidate: Candidate<AdoptVm>,
) -> Result<(), Declined<AdoptVmRefused>> {
    let AdoptVm { vm, reserved_by, .. } = candidate.command;
    let state = &handlers.state;
    let not_reserved = AdoptVmRefused::NotReserved { vm: vm.clone(), reserved_by: reserved_by.clone() };
    let adopt = VmTransition::Adopt { by: candidate.id, reserved_by };
    let record = state.registry.find(&vm).await?;
    let Some(record) = record.filter(|record| record.apply(adopt).is_ok()) else {
        return Err(Declined::Refused(not_reserved));
    };
    for disk in disks_of(&record, state.disks.as_ref()) {
        if !state.disks.exists(&disk.image.path).await.map_err(unavailable)? {
            return Err(Declined::Refused(AdoptVmRefused::DiskMissing(disk.name)));
        }
    }
    Ok(())
}
