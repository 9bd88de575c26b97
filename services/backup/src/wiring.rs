//! The table of the service: which handler answers which request, and which check comes before a durable command, whose saga
//! then begins.

use chassis::Wiring;

use crate::handlers::{
    Handlers, check_apply_retention, check_collect_repository, check_restore_backup_as_vm,
    check_start_backup, check_verify_backup, check_verify_repository, list_backups,
};
use crate::state::ServiceState;

pub(crate) fn wiring() -> Wiring<Handlers, ServiceState> {
    Wiring::default()
        .begin_on_host(check_start_backup)
        .begin_on_host(check_restore_backup_as_vm)
        .begin(check_verify_backup)
        .begin(check_verify_repository)
        .begin(check_collect_repository)
        .begin(check_apply_retention)
        .answer(list_backups)
}
