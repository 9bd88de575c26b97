//! The table: this request goes to that handler, this durable command to that saga.

use chassis::Wiring;
use operation::Engine;

use crate::handlers::*;
use crate::sagas;

pub(crate) fn wiring(handlers: Handlers, engine: &Engine) -> Wiring<Handlers> {
    Wiring::new(handlers)
        .begin(engine, sagas::AddSeed, check_add_seed)
        .answer(list_seeds)
        .answer(remove_seed)
        .begin(engine, sagas::CreateVm, check_create_vm)
        .begin(engine, sagas::StartVm, check_lock)
        .begin(engine, sagas::StopVm, check_lock)
        .begin(engine, sagas::RemoveVm, check_lock)
        .answer(list_vms)
        .answer(get_vm)
        .answer(open_disks)
        .answer(renew_disks)
        .answer(close_disks)
        .answer(reserve_vm)
        .answer(release_vm)
        .begin(engine, sagas::AdoptVm, check_adopt_vm)
}
