//! The second half: backups, by hand and by a schedule, and a second VM restored from the first of them.

use std::time::Duration;

use contract::backup::{Backup, ListBackups, RestoreBackupAsVm, StartBackup};
use contract::provisioner::{GetVm, Vm};
use contract::scheduler::{AddSchedule, RemoveSchedule, Schedule};
use contract::{BackupId, BackupRef, Service, VmName};
use tokio::time::Instant;

use super::cleanup::DemoNames;
use super::guest::DOMAIN;
use super::http::wait_for_page;
use super::steps::{described, greeting};
use super::{BETWEEN, PAGE_MAX, SIMULATED, failed};
use crate::cli::exit::CliError;
use crate::cli::schedule::backup_command;
use crate::cli::session::Session;
use crate::cli::watch::outcome;

/// Every five seconds, so that nobody waits long for the run.
const CRON: &str = "*/5 * * * * *";
/// The run itself starts at once; reading a real VM's disk takes its time.
const SCHEDULE_MAX: Duration = Duration::from_secs(300);
/// The port of a page whose domain names none.
const HTTP_PORT: u16 = 80;
/// Of an equal disk only chunks at the borders may be new.
const SAME_BYTES_MAX: u64 = 1 << 20;

pub(super) async fn back_up(session: &Session, names: &DemoNames) -> Result<(Backup, String), CliError> {
    let backup = backup_of(session, &names.web_vm).await?;
    let facts = amounts(&backup);
    Ok((backup, facts))
}

async fn backup_of(session: &Session, vm: &VmName) -> Result<Backup, CliError> {
    let id = Some(operation::new_id());
    let begun = session.request(StartBackup { vm: vm.clone(), schedule: None, operation_id: id }).await?;
    outcome(session, Service::Backup, begun.operation()).await?;
    let id = BackupId::from(begun.operation());
    let all = session.request(ListBackups { vm: Some(vm.clone()) }).await?;
    let backup = all.into_iter().find(|backup| backup.id == id);
    backup.ok_or_else(|| failed(format!("backup {id} is done, but not listed")))
}

fn amounts(backup: &Backup) -> String {
    let Backup { vm, id, bytes_read, bytes_new, bytes_stored, .. } = backup;
    format!("{vm}@{id}  read {bytes_read}, new {bytes_new}, stored {bytes_stored}")
}

pub(super) async fn by_schedule(
    session: &Session,
    names: &DemoNames,
    first: &Backup,
) -> Result<((), String), CliError> {
    let command = backup_command(&names.web_vm);
    let schedule =
        Schedule { id: names.schedule.clone(), cron: CRON.into(), time_zone: "UTC".into(), command };
    session.request(AddSchedule { schedule }).await?;
    let until = Instant::now() + SCHEDULE_MAX;
    let backup = loop {
        let all = session.request(ListBackups { vm: Some(names.web_vm.clone()) }).await?;
        let new =
            |backup: &Backup| backup.schedule.as_ref() == Some(&names.schedule) && backup.taken > first.taken;
        if let Some(backup) = all.into_iter().find(new) {
            break backup;
        }
        if Instant::now() >= until {
            return Err(failed(format!(
                "no scheduled backup was stored within {} s",
                SCHEDULE_MAX.as_secs()
            )));
        }
        tokio::time::sleep(BETWEEN).await;
    };
    session.request(RemoveSchedule { id: names.schedule.clone() }).await?;
    if backup.bytes_new.0 * 2 >= backup.bytes_read.0 {
        return Err(failed(format!("it stored more than the changed data: {}", amounts(&backup))));
    }
    Ok(((), amounts(&backup)))
}

pub(super) async fn restore(
    session: &Session,
    names: &DemoNames,
    first: &Backup,
    web: &Vm,
) -> Result<(Vm, String), CliError> {
    let command = RestoreBackupAsVm {
        backup: BackupRef { vm: first.vm.clone(), id_or_latest: first.id.to_string() },
        as_vm: names.copy.clone(),
        host: None,
        overcommit: false,
        operation_id: Some(operation::new_id()),
    };
    let begun = session.request(command).await?;
    outcome(session, Service::Backup, begun.operation()).await?;
    let copy = session.request(GetVm { vm: names.copy.clone() }).await?;
    if copy.uuid == web.uuid || copy.mac == web.mac {
        return Err(failed("the second VM has the UUID or MAC of the first"));
    }
    let facts = described(&copy);
    Ok((copy, facts))
}

pub(super) async fn compare(
    session: &Session,
    proxy: &str,
    copy: &Vm,
    note: &str,
) -> Result<((), String), CliError> {
    // The copy has no domain, and a simulated guest opens no other ports: then its disk is compared.
    if copy.hypervisor == SIMULATED && copy.definition.domains.is_empty() {
        return compare_disk(session, copy).await;
    }
    let address = copy.address.ok_or_else(|| failed("web2 has no address"))?;
    let port = copy.definition.domains.first().map_or(HTTP_PORT, |route| route.port);
    let place = std::net::SocketAddr::new(address, port).to_string();
    let page = wait_for_page(&place, DOMAIN, greeting(copy), PAGE_MAX).await.map_err(failed)?;
    if page.contains(note) {
        return Err(failed("web2 serves the page as it is now, not as it was"));
    }
    wait_for_page(proxy, DOMAIN, note, PAGE_MAX).await.map_err(failed)?;
    Ok(((), format!("http://{place} without the change; http://{DOMAIN} with it")))
}

/// A backup of the copy stores nothing that the store does not hold already.
async fn compare_disk(session: &Session, copy: &Vm) -> Result<((), String), CliError> {
    let backup = backup_of(session, &copy.definition.name).await?;
    if backup.bytes_new.0 > SAME_BYTES_MAX {
        return Err(failed(format!("the disk of web2 differs: {}", amounts(&backup))));
    }
    Ok(((), format!("SIMULATED guest without a page; its disk read back: {}", amounts(&backup))))
}
