//! The table: this request goes to that handler; this check comes before that durable command, whose saga then begins.

use chassis::Wiring;
use contract::provisioner::{RemoveVm, StopVm};

use crate::handlers::*;
use crate::state::ServiceState;

pub(crate) fn wiring() -> Wiring<Handlers, ServiceState> {
    Wiring::default()
        .begin(check_add_seed)
        .answer(list_seeds)
        .answer(remove_seed)
        .begin(check_create_vm)
        .begin(check_start_vm)
        .begin(check_lock::<StopVm>)
        .begin(check_lock::<RemoveVm>)
        .answer(list_vms)
        .answer(get_vm)
        .answer(get_vm_secrets)
        .answer(open_disks)
        .answer(renew_disks)
        .answer(close_disks)
        .answer(reserve_vm_name)
        .answer(release_vm_name)
        .begin(check_create_reserved_vm)
}
