//! `loam backup`.

use contract::Service;
use contract::backup::{Backup, ListBackups, RestoreBackup, StartBackup, VerifyBackup};

use super::args;
use super::exit::Trouble;
use super::output::{show, table, time};
use super::session::Session;
use super::work::follow;

pub(super) async fn run(session: &Session, command: args::Backup) -> Result<(), Trouble> {
    let service = Service::Backup;
    match command {
        args::Backup::Run { vm, lasting } => {
            let begun = session.ask(StartBackup { vm, schedule: None, operation_id: None }).await?;
            follow(session, service, begun, lasting).await
        }
        args::Backup::List { vm } => {
            show(session.json, &session.ask(ListBackups { vm }).await?, |all| list(all))
        }
        args::Backup::Restore { backup, as_vm, lasting } => {
            let begun = session.ask(RestoreBackup { backup, as_vm, operation_id: None }).await?;
            follow(session, service, begun, lasting).await
        }
        args::Backup::Verify { backup, lasting } => {
            let begun = session.ask(VerifyBackup { backup, operation_id: None }).await?;
            follow(session, service, begun, lasting).await
        }
    }
}

fn list(backups: &[Backup]) {
    let rows = backups.iter().map(|backup| {
        let consistency = serde_json::to_value(backup.consistency).ok();
        let consistency =
            consistency.and_then(|value| value.as_str().map(str::to_string)).unwrap_or_default();
        [
            format!("{}@{}", backup.vm, backup.id),
            time(&backup.taken),
            consistency,
            backup.bytes_read.to_string(),
            backup.bytes_new.to_string(),
            backup.bytes_stored.to_string(),
            backup.schedule.as_ref().map_or_else(|| "-".into(), ToString::to_string),
        ]
    });
    table(
        ["BACKUP", "TAKEN", "CONSISTENT AS", "READ", "NEW", "STORED", "SCHEDULE"],
        rows.collect(),
        "no backups; `loam backup run` makes one",
    );
}
