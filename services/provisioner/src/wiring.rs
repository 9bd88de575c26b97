//! The table: this request goes to that handler; this check comes before that durable command, whose saga then begins.
//! What concerns one host is answered there (`handlers/routing`); the backup service sends to its own host.

use chassis::Wiring;
use contract::provisioner::{RemoveVm, StopVm};

use crate::handlers::*;
use crate::state::ServiceState;

pub(crate) fn wiring() -> Wiring<Handlers, ServiceState> {
    Wiring::default()
        .answer(list_hosts)
        .answer(remove_host)
        .answer(forget_vm)
        .begin_on_host(check_add_seed)
        .answer(list_seeds)
        .answer_on_host(remove_seed)
        .begin_on_host(check_create_vm)
        .begin_on_host(check_start_vm)
        .begin_on_host(check_lock::<StopVm>)
        .begin_on_host(check_lock::<RemoveVm>)
        .answer(list_vms)
        .answer_on_host(get_vm)
        .answer_on_host(get_vm_secrets)
        .answer_at_host(open_disks)
        .answer_at_host(renew_disks)
        .answer_at_host(close_disks)
        .answer_at_host(reserve_vm_name)
        .answer_at_host(release_vm_name)
        .begin_at_host(check_create_reserved_vm)
}
