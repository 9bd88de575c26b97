//! The table: this question goes to that answer.
//!
//! A command that lasts is looked at first (may it be so now?), then begun; the same id again gets the same answer,
//! without a second look. The look can be overtaken: then the operation itself ends undone, and says why.

use bus::{Call, Declined, Server};
use contract::OperationId;
use contract::operation::Begun;
use contract::provisioner::{
    AddSeed, AddSeedRefused, AdoptVm, AdoptVmRefused, CloseDisks, CreateVm, CreateVmRefused, DiskPath,
    GetVm, ListSeeds, ListVms, OpenDisks, ReleaseVm, Released, RemoveSeed, RemoveSeedRefused, RemoveVm,
    RenewDisks, ReserveVm, ReservedVm, Seed, StartVm, StopVm, Vm, VmRefused,
};
use contract::message::{Failure, FailureKind, NoRefusal};
use contract::{Request, VmName};
use operation::{BeginError, Work, new_id};
use provisioner_domain::{Phase, VmTransition, VmRecord, WorkKind};

use crate::sagas::add_seed::{AddSeedWork, SeedWish};
use crate::sagas::adopt_vm::{AdoptVmWork, Adoption};
use crate::sagas::create_vm::CreateVmWork;
use crate::sagas::remove_vm::RemoveVmWork;
use crate::sagas::start_vm::StartVmWork;
use crate::sagas::stop_vm::StopVmWork;
use crate::sagas::{chain, disks_of};
use crate::service::House;

/// Adds every endpoint of the provisioner to its desk.
pub fn answer(house: House, server: &mut Server) {
    macro_rules! on {
        ($request:ty => $handler:expr) => {{
            let house = house.clone();
            server.on::<$request, _, _>(move |asked| {
                let house = house.clone();
                async move { $handler(&house, asked).await }
            });
        }};
    }
    on!(AddSeed => add_seed);
    on!(ListSeeds => list_seeds);
    on!(RemoveSeed => remove_seed);
    on!(CreateVm => create_vm);
    on!(StartVm => start_vm);
    on!(StopVm => stop_vm);
    on!(RemoveVm => remove_vm);
    on!(ListVms => list_vms);
    on!(GetVm => get_vm);
    on!(OpenDisks => async |house: &House, asked: Call<OpenDisks>| {
        house.exports.open(asked.request.vm, asked.request.operation_id).await
    });
    on!(RenewDisks => async |house: &House, asked: Call<RenewDisks>| {
        house.exports.renew(asked.request.operation_id).await
    });
    on!(CloseDisks => async |house: &House, asked: Call<CloseDisks>| {
        house.exports.close(asked.request.operation_id).await
    });
    on!(ReserveVm => reserve_vm);
    on!(ReleaseVm => release_vm);
    on!(AdoptVm => adopt_vm);
}

type Answer<R> = Result<<R as Request>::Reply, Declined<<R as Request>::Refusal>>;

/// The id of the operation that a command begins.
fn id_of<R>(asked: &Call<R>, given: Option<&OperationId>) -> OperationId {
    given.cloned().or_else(|| asked.operation_of_message()).unwrap_or_else(new_id)
}

/// Begins an operation after a look, unless it was begun before.
async fn begin<W: Work, R>(
    house: &House,
    id: OperationId,
    input: W::Input,
    look: impl AsyncFnOnce() -> Result<(), Declined<R>>,
    reused: impl FnOnce(OperationId) -> R,
) -> Result<Begun, Declined<R>> {
    let known = house.operations.find(&id).await;
    if known.map_err(|error| unavailable(error.to_string()))?.is_none() {
        look().await?;
    }
    match house.operations.begin::<W>(id, &input).await {
        Ok(begun) => Ok(begun),
        Err(BeginError::IdReused(id)) => Err(Declined::Refused(reused(id))),
        Err(error) => Err(Failure::from(error).into()),
    }
}

fn unavailable(message: String) -> Failure {
    Failure { kind: FailureKind::Unavailable, message }
}

async fn add_seed(house: &House, asked: Call<AddSeed>) -> Answer<AddSeed> {
    let id = id_of(&asked, asked.request.operation_id.as_ref());
    let AddSeed { name, from, sha256, .. } = asked.request;
    let wish = SeedWish { name, from, sha256: sha256.to_ascii_lowercase() };
    let look = async || {
        if wish.source().is_none() {
            return Err(Declined::Refused(AddSeedRefused::NotASource(wish.from.clone())));
        }
        let inventory = house.state.registry.look().await?;
        match inventory.add_seed(&wish.name, &wish.sha256, &id) {
            Ok(_) => Ok(()),
            Err(refusal) => Err(Declined::Refused(refusal)),
        }
    };
    begin::<AddSeedWork, _>(house, id.clone(), wish.clone(), look, AddSeedRefused::IdReused).await
}

async fn list_seeds(house: &House, _: Call<ListSeeds>) -> Result<Vec<Seed>, Declined<NoRefusal>> {
    Ok(house.state.registry.look().await?.seeds().cloned().collect())
}

async fn remove_seed(house: &House, asked: Call<RemoveSeed>) -> Result<Seed, Declined<RemoveSeedRefused>> {
    let (seed, needed) = house.state.registry.remove_seed(asked.request.name).await?;
    if !needed {
        // Its name is gone already; a file that stays is overwritten when the same image comes again.
        let removed = house.state.disks.remove_seed(&seed.sha256).await;
        removed.map_err(|error| unavailable(chain(&error)))?;
    }
    Ok(seed)
}

async fn create_vm(house: &House, asked: Call<CreateVm>) -> Answer<CreateVm> {
    let id = id_of(&asked, asked.request.operation_id.as_ref());
    let definition = asked.request.definition;
    let look = async || {
        let inventory = house.state.registry.look().await?;
        match inventory.may_create(&definition) {
            Ok(_) => Ok(()),
            Err(refusal) => Err(Declined::Refused(refusal)),
        }
    };
    begin::<CreateVmWork, _>(house, id, definition.clone(), look, CreateVmRefused::IdReused).await
}

/// Begins work on a living machine, after a look whether it may begin now.
async fn work_on<W: Work<Input = VmName>>(
    house: &House,
    id: OperationId,
    vm: VmName,
    kind: WorkKind,
) -> Result<Begun, Declined<VmRefused>> {
    let look = async || {
        let record = house.state.registry.vm(&vm).await?;
        match record.begin(&id, kind) {
            Ok(_) => Ok(()),
            Err(refusal) => Err(Declined::Refused(refusal)),
        }
    };
    begin::<W, _>(house, id.clone(), vm.clone(), look, VmRefused::IdReused).await
}

async fn start_vm(house: &House, asked: Call<StartVm>) -> Answer<StartVm> {
    let id = id_of(&asked, asked.request.operation_id.as_ref());
    work_on::<StartVmWork>(house, id, asked.request.vm, WorkKind::Starting).await
}

async fn stop_vm(house: &House, asked: Call<StopVm>) -> Answer<StopVm> {
    let id = id_of(&asked, asked.request.operation_id.as_ref());
    work_on::<StopVmWork>(house, id, asked.request.vm, WorkKind::Stopping).await
}

async fn remove_vm(house: &House, asked: Call<RemoveVm>) -> Answer<RemoveVm> {
    let id = id_of(&asked, asked.request.operation_id.as_ref());
    work_on::<RemoveVmWork>(house, id, asked.request.vm, WorkKind::Removing).await
}

async fn list_vms(house: &House, _: Call<ListVms>) -> Result<Vec<Vm>, Declined<NoRefusal>> {
    let inventory = house.state.registry.look().await?;
    let outline = |record: &VmRecord| record.outline(house.state.hypervisor.name());
    Ok(inventory.vms().map(outline).collect())
}

async fn get_vm(house: &House, asked: Call<GetVm>) -> Answer<GetVm> {
    let record = house.state.registry.vm(&asked.request.vm).await?;
    Ok(record.view(house.state.hypervisor.name()))
}

async fn reserve_vm(house: &House, asked: Call<ReserveVm>) -> Answer<ReserveVm> {
    let ReserveVm { definition, disks, operation_id } = asked.request;
    let state = &house.state;
    let record = state.registry.reserve(definition, disks, operation_id).await?;
    let made = state.disks.create_folder(record.name().as_str()).await;
    made.map_err(|error| unavailable(chain(&error)))?;
    let places = disks_of(&record, state.disks.as_ref());
    let place = |disk: crate::ports::Disk| DiskPath { disk: disk.name, path: disk.image.path };
    Ok(ReservedVm { host: record.host, disks: places.into_iter().map(place).collect() })
}

async fn release_vm(house: &House, asked: Call<ReleaseVm>) -> Result<Released, Declined<NoRefusal>> {
    let ReleaseVm { vm, operation_id } = asked.request;
    let state = &house.state;
    let inventory = state.registry.look().await?;
    let reserved = inventory
        .vm(&vm)
        .is_some_and(|record| matches!(&record.phase, Phase::Reserved { by } if *by == operation_id));
    if !reserved {
        return Ok(Released { was_reserved: false });
    }
    // The files go first: until the name is given back the folder cannot be anybody else's.
    let erased = state.disks.erase(vm.as_str()).await;
    erased.map_err(|error| unavailable(chain(&error)))?;
    match state.registry.forget(&vm, &operation_id).await {
        Ok(was_reserved) => Ok(Released { was_reserved }),
        Err(Declined::Refused(_)) => Ok(Released { was_reserved: false }),
        Err(Declined::Failed(failure)) => Err(failure.into()),
    }
}

async fn adopt_vm(house: &House, asked: Call<AdoptVm>) -> Answer<AdoptVm> {
    let adoption = Adoption::from(&asked.request);
    let id = asked.request.operation_id;
    let not_reserved = || {
        Declined::Refused(AdoptVmRefused::NotReserved {
            vm: adoption.vm.clone(),
            reserved_by: adoption.reserved_by.clone(),
        })
    };
    let look = async || {
        let record = match house.state.registry.vm(&adoption.vm).await {
            Ok(record) => record,
            Err(Declined::Refused(_)) => return Err(not_reserved()),
            Err(Declined::Failed(failure)) => return Err(failure.into()),
        };
        let adopt = VmTransition::Adopt(id.clone(), adoption.reserved_by.clone());
        record.make(adopt).map_err(|_| not_reserved())?;
        for disk in disks_of(&record, house.state.disks.as_ref()) {
            let written = house.state.disks.exists(&disk.image.path).await;
            if !written.map_err(|error| unavailable(chain(&error)))? {
                return Err(Declined::Refused(AdoptVmRefused::DiskMissing(disk.name)));
            }
        }
        Ok(())
    };
    begin::<AdoptVmWork, _>(house, id.clone(), adoption.clone(), look, AdoptVmRefused::IdReused).await
}
