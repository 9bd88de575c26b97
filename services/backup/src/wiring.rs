//! The table of the service: which handler answers which request, and which saga a durable command begins.

use chassis::Wiring;
use operation::Engine;

use crate::handlers::{
    Handlers, check_apply_retention, check_collect_repository, check_restore_backup, check_start_backup,
    check_verify_backup, check_verify_repository, list_backups,
};
use crate::sagas;

pub(crate) fn wiring(handlers: Handlers, engine: &Engine) -> Wiring<Handlers> {
    Wiring::new(handlers)
        .begin(engine, sagas::StartBackup, check_start_backup)
        .begin(engine, sagas::RestoreBackup, check_restore_backup)
        .begin(engine, sagas::VerifyBackup, check_verify_backup)
        .begin(engine, sagas::VerifyRepository, check_verify_repository)
        .begin(engine, sagas::CollectRepository, check_collect_repository)
        .begin(engine, sagas::ApplyRetention, check_apply_retention)
        .answer(list_backups)
}
