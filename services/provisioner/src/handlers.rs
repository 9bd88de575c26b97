//! The request handlers, and the checks of durable commands.
//!
//! A check refuses what cannot be done now before an operation begins. It may be overtaken by another operation: then
//! the saga finds out, ends undone, and says why.
//!
//! `routing` says which host answers; `hosts` answers about hosts.

mod hosts;
mod routing;

use std::sync::Arc;

use bus::{ErrorReply, IncomingRequest, TableError};
use contract::ByteCount;
use contract::message::{Failure, FailureKind, NeverRefused};
use contract::provisioner::{
    AddSeed, AddSeedRefused, CloseDisks, ClosedExports, CreateReservedVm, CreateReservedVmRefused, CreateVm,
    CreateVmRefused, DiskPath, GetVm, GetVmSecrets, ListSeeds, ListVms, NotOpen, OpenDisks, OpenDisksRefused,
    OpenedDisks, ReleaseVmName, ReleasedVmName, RemoveSeed, RemoveSeedRefused, RenewDisks, RenewedLease,
    ReserveVmName, ReservedVm, Seed, StartVm, Vm, VmDefinition, VmRefused, VmSecrets,
};
use operation::PendingCommand;
use provisioner_domain::{Inventory, ObservedVmState, PowerState, VmRecord, VmTransition};

use crate::actors::ExportKeeperHandle;
use crate::ports::{Disk, DiskError};
use crate::sagas::{VmLockingCommand, source_of};
use crate::secrets::{decrypt, whole_definition};
use crate::state::ServiceState;
use crate::vm_spec::disks_of;

pub(crate) use hosts::{forget_vm, list_hosts, remove_host};

/// What request handlers share.
pub(crate) struct Handlers {
    pub(crate) state: Arc<ServiceState>,
    pub(crate) export_keeper: ExportKeeperHandle,
}

fn unavailable(error: DiskError) -> Failure {
    Failure::unavailable(&error)
}

pub(crate) async fn check_add_seed(
    handlers: Arc<Handlers>,
    candidate: PendingCommand<AddSeed>,
) -> Result<(), ErrorReply<AddSeedRefused>> {
    let AddSeed { name, from, sha256, .. } = candidate.command;
    if source_of(&from).is_none() {
        return Err(ErrorReply::Refused(AddSeedRefused::NotASource(from)));
    }
    let inventory = handlers.state.registry.snapshot().await?;
    let added = inventory.add_seed(&name, &sha256.to_ascii_lowercase(), &candidate.id);
    added.map(drop).map_err(ErrorReply::Refused)
}

pub(crate) async fn list_seeds(
    handlers: Arc<Handlers>,
    _: IncomingRequest<ListSeeds>,
) -> Result<Vec<Seed>, ErrorReply<NeverRefused>> {
    let state = &handlers.state;
    let mut seeds: Vec<Seed> = state.registry.snapshot().await?.seeds().cloned().collect();
    seeds.extend(state.installation.seeds_elsewhere().await.map_err(|error| error.to_failure())?);
    seeds.sort_by(|one, other| (&one.name, &one.host).cmp(&(&other.name, &other.host)));
    Ok(seeds)
}

pub(crate) async fn remove_seed(
    handlers: Arc<Handlers>,
    call: IncomingRequest<RemoveSeed>,
) -> Result<Seed, ErrorReply<RemoveSeedRefused>> {
    let (seed, is_needed) = handlers.state.registry.remove_seed(call.request.name).await?;
    if !is_needed {
        // The record is removed already; a file that stays is used when the same image is imported again.
        handlers.state.disks.remove_seed(&seed.sha256).await.map_err(unavailable)?;
    }
    Ok(seed)
}

pub(crate) async fn check_create_vm(
    handlers: Arc<Handlers>,
    candidate: PendingCommand<CreateVm>,
) -> Result<(), ErrorReply<CreateVmRefused>> {
    let (state, CreateVm { definition, overcommit, .. }) = (&handlers.state, candidate.command);
    let inventory = state.registry.snapshot().await?;
    inventory.may_create(&definition).map_err(ErrorReply::Refused)?;
    check_elsewhere(state, &definition).await?;
    match overcommit {
        true => Ok(()),
        false => check_room(state, &inventory, &definition, definition.disk_size).await,
    }
}

/// Whether VMs of other hosts leave a new VM its name and its domains.
async fn check_elsewhere(
    state: &ServiceState,
    definition: &VmDefinition,
) -> Result<(), ErrorReply<CreateVmRefused>> {
    let failed = |error: TableError| error.to_failure();
    let (installation, name) = (&state.installation, &definition.name);
    if installation.names.is_taken_elsewhere(name).await.map_err(failed)? {
        return Err(ErrorReply::Refused(CreateVmRefused::NameTaken(name.clone())));
    }
    match installation.routed_elsewhere(&definition.domains).await.map_err(failed)? {
        Some((domain, vm)) => Err(ErrorReply::Refused(CreateVmRefused::HttpDomainTaken { domain, vm })),
        None => Ok(()),
    }
}

/// Whether a new VM fits on this host. A hypervisor that is away is waited for by the operation; what fits is not known
/// then.
async fn check_room(
    state: &ServiceState,
    inventory: &Inventory,
    definition: &VmDefinition,
    disk_size: ByteCount,
) -> Result<(), ErrorReply<CreateVmRefused>> {
    let Ok(capacity) = state.hypervisor.capacity().await else {
        return Ok(());
    };
    let free = state.disks.free().await.map_err(unavailable)?;
    let wanted = VmDefinition { disk_size, ..definition.clone() };
    capacity.check(&wanted, inventory.promised_memory(), free).map_err(ErrorReply::Refused)
}

/// Whether a command may lock its VM now.
pub(crate) async fn check_lock<C: VmLockingCommand>(
    handlers: Arc<Handlers>,
    candidate: PendingCommand<C>,
) -> Result<(), ErrorReply<VmRefused>> {
    let record = handlers.state.registry.vm(candidate.command.vm()).await?;
    let begin = VmTransition::Begin { by: candidate.id, kind: C::KIND };
    record.apply(begin).map(drop).map_err(ErrorReply::Refused)
}

/// Whether a VM may be started now. The hypervisor is asked, whose answer may be newer than the record; one that is away
/// is waited for by the operation.
pub(crate) async fn check_start_vm(
    handlers: Arc<Handlers>,
    candidate: PendingCommand<StartVm>,
) -> Result<(), ErrorReply<VmRefused>> {
    let state = &handlers.state;
    let record = state.registry.vm(&candidate.command.vm).await?;
    let (vm, before) = (record.name(), record.observed());
    if let (Ok(power), Some(before)) = (state.hypervisor.power(&record.identity.uuid).await, before) {
        let changes = match power {
            PowerState::Missing => record.problem(),
            _ => state.disk_changes(&record).await.unwrap_or_else(|_| record.problem()),
        };
        let disks_changed = changes.is_some();
        let now = ObservedVmState { disks_changed, ..ObservedVmState::after(Some(before), power) };
        state.registry.apply(vm, VmTransition::RecordObservation { before, now }).await?;
        if let (false, Some(changes)) = (power.is_on(), changes) {
            return Err(ErrorReply::Refused(VmRefused::DisksChanged { vm: vm.clone(), changes }));
        }
    }
    check_lock(handlers, candidate).await
}

pub(crate) async fn list_vms(
    handlers: Arc<Handlers>,
    _: IncomingRequest<ListVms>,
) -> Result<Vec<Vm>, ErrorReply<NeverRefused>> {
    let inventory = handlers.state.registry.snapshot().await?;
    let hypervisor = handlers.state.hypervisor.info();
    let mut vms: Vec<Vm> = inventory.vms().map(|record| record.outline(&hypervisor)).collect();
    let elsewhere = handlers.state.installation.vms_elsewhere().await;
    vms.extend(elsewhere.map_err(|error| error.to_failure())?);
    vms.sort_by(|one, other| one.definition.name.cmp(&other.definition.name));
    Ok(vms)
}

pub(crate) async fn get_vm(
    handlers: Arc<Handlers>,
    call: IncomingRequest<GetVm>,
) -> Result<Vm, ErrorReply<VmRefused>> {
    let (state, vm) = (&handlers.state, call.request.vm);
    match state.registry.find(&vm).await? {
        Some(record) => Ok(record.view(&state.hypervisor.info())),
        // Its host cannot be asked: what is known of it here.
        None => {
            let elsewhere = state.installation.vm_elsewhere(&vm).await.map_err(|error| error.to_failure())?;
            elsewhere.ok_or(ErrorReply::Refused(VmRefused::UnknownVm(vm)))
        }
    }
}

pub(crate) async fn get_vm_secrets(
    handlers: Arc<Handlers>,
    call: IncomingRequest<GetVmSecrets>,
) -> Result<VmSecrets, ErrorReply<VmRefused>> {
    if !call.caller.may_see_secrets() {
        let message = "the variables and scripts of a VM are shown to the operator only".into();
        return Err(Failure { kind: FailureKind::NotAllowed, message }.into());
    }
    let record = handlers.state.registry.vm(&call.request.vm).await?;
    decrypt(&handlers.state.keys, &record).map_err(|error| Failure::unavailable(&error).into())
}

pub(crate) async fn open_disks(
    handlers: Arc<Handlers>,
    call: IncomingRequest<OpenDisks>,
) -> Result<OpenedDisks, ErrorReply<OpenDisksRefused>> {
    let OpenDisks { vm, operation_id } = call.request;
    let mut opened = handlers.export_keeper.open(vm.clone(), operation_id).await?;
    // While its disks are open it is locked: it has a record.
    if let Some(record) = handlers.state.registry.find(&vm).await? {
        opened.definition = whole_definition(&handlers.state.keys, &record);
    }
    Ok(opened)
}

pub(crate) async fn renew_disks(
    handlers: Arc<Handlers>,
    call: IncomingRequest<RenewDisks>,
) -> Result<RenewedLease, ErrorReply<NotOpen>> {
    handlers.export_keeper.renew(call.request.operation_id).await
}

pub(crate) async fn close_disks(
    handlers: Arc<Handlers>,
    call: IncomingRequest<CloseDisks>,
) -> Result<ClosedExports, ErrorReply<NeverRefused>> {
    handlers.export_keeper.close(call.request.operation_id).await
}

pub(crate) async fn reserve_vm_name(
    handlers: Arc<Handlers>,
    call: IncomingRequest<ReserveVmName>,
) -> Result<ReservedVm, ErrorReply<CreateVmRefused>> {
    let ReserveVmName { definition, disks, overcommit, operation_id } = call.request;
    let state = &handlers.state;
    let is_reserved = |record: VmRecord| record.locked_by() == Some(&operation_id);
    let is_repeated = state.registry.find(&definition.name).await?.is_some_and(is_reserved);
    if !overcommit && !is_repeated {
        let inventory = state.registry.snapshot().await?;
        let size = ByteCount(disks.iter().map(|disk| disk.size.0).sum());
        check_room(state, &inventory, &definition, size).await?;
    }
    let record = state.registry.reserve(definition, disks, operation_id).await?;
    let folder = state.disks.create_restore_folder(record.name()).await.map_err(unavailable)?;
    let disks = disks_of(&record, state.disks.as_ref()).into_iter();
    let path = |disk: &Disk| folder.join(disk.image.path.file_name().expect("an image is a file"));
    let disks = disks.map(|disk| DiskPath { path: path(&disk), disk: disk.name }).collect();
    Ok(ReservedVm { host: record.host, disks })
}

pub(crate) async fn release_vm_name(
    handlers: Arc<Handlers>,
    call: IncomingRequest<ReleaseVmName>,
) -> Result<ReleasedVmName, ErrorReply<NeverRefused>> {
    let ReleaseVmName { vm, operation_id } = call.request;
    let was_reserved = handlers.state.release(&vm, &operation_id).await?;
    Ok(ReleasedVmName { was_reserved })
}

pub(crate) async fn check_create_reserved_vm(
    handlers: Arc<Handlers>,
    candidate: PendingCommand<CreateReservedVm>,
) -> Result<(), ErrorReply<CreateReservedVmRefused>> {
    let CreateReservedVm { vm, reserved_by, .. } = candidate.command;
    let state = &handlers.state;
    let not_reserved =
        CreateReservedVmRefused::NotReserved { vm: vm.clone(), reserved_by: reserved_by.clone() };
    let begin_reserved = VmTransition::BeginReserved { by: candidate.id, reserved_by };
    let record = state.registry.find(&vm).await?;
    let Some(record) = record.filter(|record| record.apply(begin_reserved).is_ok()) else {
        return Err(ErrorReply::Refused(not_reserved));
    };
    for disk in disks_of(&record, state.disks.as_ref()) {
        if !state.disks.take_restored(record.name(), &disk.image.path).await.map_err(unavailable)? {
            return Err(ErrorReply::Refused(CreateReservedVmRefused::DiskMissing(disk.name)));
        }
    }
    Ok(())
}
