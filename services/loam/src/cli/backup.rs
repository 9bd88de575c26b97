//! `loam backup`.

use contract::Service;
use contract::backup::{
    ApplyRetention, Backup, CollectRepository, ListBackups, RestoreBackup, RetentionRules, StartBackup,
    VerifyBackup, VerifyRepository,
};

use super::args;
use super::exit::CliError;
use super::output::{Text, cut, extra, number, short, short_length, show, time, whole};
use super::session::Session;
use super::watch::follow;

pub(super) async fn run(session: &Session, command: args::Backup) -> Result<(), CliError> {
    let service = Service::Backup;
    match command {
        args::Backup::Run { vm, detach } => {
            let begun = session.request(StartBackup { vm, schedule: None, operation_id: None }).await?;
            follow(session, service, begun, detach).await
        }
        args::Backup::List { vm } => {
            show(session.json, &session.request(ListBackups { vm }).await?, |all, text| list(all, text))
        }
        args::Backup::Restore { backup, as_vm, detach } => {
            let begun = session.request(RestoreBackup { backup, as_vm, operation_id: None }).await?;
            follow(session, service, begun, detach).await
        }
        args::Backup::Verify { backup, detach } => {
            let begun = session.request(VerifyBackup { backup, operation_id: None }).await?;
            follow(session, service, begun, detach).await
        }
        args::Backup::VerifyRepository { bytes_max, detach } => {
            let begun = session.request(VerifyRepository { bytes_max, operation_id: None }).await?;
            follow(session, service, begun, detach).await
        }
        args::Backup::Forget(args) => {
            let begun = session.request(retention(&args)).await?;
            follow(session, service, begun, args.detach).await
        }
        args::Backup::Collect { detach } => {
            let begun = session.request(CollectRepository { operation_id: None }).await?;
            follow(session, service, begun, detach).await
        }
    }
}

fn retention(args: &args::Forget) -> ApplyRetention {
    let keep = RetentionRules {
        last: args.keep_last,
        hourly: args.keep_hourly,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        monthly: args.keep_monthly,
        yearly: args.keep_yearly,
    };
    ApplyRetention { keep, vm: args.vm.clone(), operation_id: None }
}

fn list(backups: &[Backup], text: &mut Text) {
    let length = short_length(backups.iter().map(|backup| backup.id.as_str()));
    let rows = backups.iter().map(|backup| {
        let consistency = serde_json::to_value(backup.consistency).ok();
        let consistency = consistency.and_then(|value| value.as_str().map(|name| name.replace('_', " ")));
        [
            format!("{}@{}", backup.vm, short(backup.id.as_str(), length)),
            time(&backup.taken),
            consistency.unwrap_or_default(),
            backup.bytes_read.to_string(),
            backup.bytes_new.to_string(),
            backup.bytes_stored.to_string(),
            backup.schedule.as_ref().map_or_else(|| "-".into(), ToString::to_string),
        ]
    });
    let head = [
        whole("BACKUP"),
        whole("TAKEN"),
        extra(cut("CONSISTENCY")),
        extra(number("READ")),
        number("NEW"),
        number("STORED"),
        cut("SCHEDULE"),
    ];
    text.table(head, rows.collect(), "no backups; `loam backup run` makes one");
}
