//! What an operation brought about, in one sentence with what matters: addresses, domains, ids, bytes, time.
//!
//! Every command has a sentence: `rename vm web is done after 2 s`, or one of its own here where there is more to say. It
//! asks the services for what the report does not say. Where they do not answer, the sentence is shorter: the
//! operation is done in any case.

use std::fmt::Write;

use contract::backup::{AppliedRetention, Backup, CollectedRepository, VerifiedRepository};
use contract::operation::OperationReport;
use contract::provisioner::{GetVm, Seed, Vm};
use contract::proxy::ListRoutes;
use contract::{BackupId, VmName};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::output::seconds;
use super::session::Session;

const HTTP_PORT: &str = "80";

/// The sentence of an operation that is done.
pub(super) async fn of(session: &Session, report: &OperationReport) -> String {
    let took = seconds((report.updated - report.started).num_milliseconds());
    let about = &report.about;
    match report.kind.as_str() {
        "create_vm" => vm(session, about, &format!("{about} is ready after {took}")).await,
        "start_vm" => vm(session, about, &format!("{about} is running after {took}")).await,
        "stop_vm" => format!("{about} is stopped after {took}"),
        "remove_vm" => format!("{about} is removed after {took}; its backups stay"),
        "add_seed" => match output::<Seed>(report) {
            Some(Seed { name, virtual_size, stored_size, .. }) => {
                format!(
                    "seed {name} is added after {took}: disk size {virtual_size}, stored in {stored_size}"
                )
            }
            None => done(report, &took),
        },
        "start_backup" => match output::<Backup>(report) {
            Some(backup) => stored(&backup, &took),
            None => done(report, &took),
        },
        "restore_backup_as_vm" => {
            let from = output::<Restored>(report).map(|Restored { backup }| format!(" {backup}"));
            let from = from.unwrap_or_default();
            vm(session, about, &format!("{about} is restored from backup{from} after {took}")).await
        }
        "verify_backup" => format!("{about} is whole: every byte was read and checked in {took}"),
        "verify_repository" => match output::<VerifiedRepository>(report) {
            Some(VerifiedRepository { packs, packs_deferred, bytes_read, backups, .. }) => {
                let scope = match backups {
                    0 => format!(
                        "{packs_deferred} packs are left for later, missing packs were not looked for"
                    ),
                    backups => format!("everything that {backups} backups need is there"),
                };
                format!("no damage in {packs} packs ({bytes_read}), checked in {took}; {scope}")
            }
            None => done(report, &took),
        },
        "collect_repository" => match output::<CollectedRepository>(report) {
            Some(CollectedRepository { packs_deleted, bytes_deleted, packs_waiting, .. }) => format!(
                "deleted {packs_deleted} packs ({bytes_deleted}) in {took}; {packs_waiting} packs wait for a later run"
            ),
            None => done(report, &took),
        },
        "apply_retention" => match output::<AppliedRetention>(report) {
            Some(AppliedRetention { forgotten, kept_total, deferred_total: left, .. }) => {
                let left =
                    if left > 0 { format!("; {left} are left for the next run") } else { String::new() };
                format!("{} backups are forgotten, {kept_total} are kept{left}", forgotten.len())
            }
            None => done(report, &took),
        },
        "apply_release" => match output::<Replaced>(report) {
            Some(Replaced { service, version, build }) => {
                format!("{service} is upgraded to {version}, build {build}, after {took}")
            }
            None => done(report, &took),
        },
        "roll_back_service" => match output::<Replaced>(report) {
            Some(Replaced { service, version, build }) => {
                format!("{service} is rolled back to {version}, build {build}, after {took}")
            }
            None => done(report, &took),
        },
        _ => done(report, &took),
    }
}

/// The sentence of a command without one of its own.
fn done(report: &OperationReport, took: &str) -> String {
    format!("{} is done after {took}", super::watch::title(report))
}

fn output<T: DeserializeOwned>(report: &OperationReport) -> Option<T> {
    serde_json::from_value(report.output.clone()?).ok()
}

/// The output of `restore_backup_as_vm`, as far as it is shown.
#[derive(Deserialize)]
struct Restored {
    backup: BackupId,
}

/// The output of `apply_release` and `roll_back_service`, as far as it is shown.
#[derive(Deserialize)]
struct Replaced {
    service: String,
    version: String,
    build: String,
}

fn stored(backup: &Backup, took: &str) -> String {
    let Backup { vm, id, bytes_read, bytes_new, bytes_stored, .. } = backup;
    format!(
        "backup {vm}@{id} is stored after {took}: read {bytes_read}, new {bytes_new}, stored {bytes_stored}"
    )
}

/// Adds where the VM is reached.
async fn vm(session: &Session, name: &str, done: &str) -> String {
    let mut sentence = done.to_string();
    let Ok(name) = VmName::new(name) else { return sentence };
    let Ok(vm) = session.request(GetVm { vm: name }).await else { return sentence };
    let listener = match vm.definition.domains.is_empty() {
        true => None,
        false => session.request(ListRoutes {}).await.ok().map(|routes| routes.http_listener),
    };
    reached(&vm, listener.as_deref(), &mut sentence);
    sentence
}

fn reached(vm: &Vm, listener: Option<&str>, sentence: &mut String) {
    const INTO_MEMORY: &str = "a string takes every text";
    if let Some(address) = &vm.address {
        write!(sentence, ", address {address}").expect(INTO_MEMORY);
    }
    let port = listener.and_then(|listener| listener.rsplit(':').next()).filter(|port| *port != HTTP_PORT);
    for route in &vm.definition.domains {
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        write!(sentence, ", http://{}{port}/", route.domain).expect(INTO_MEMORY);
    }
    if vm.hypervisor != "libvirt" {
        write!(sentence, " ({}: no VM really exists)", vm.hypervisor).expect(INTO_MEMORY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_without_a_sentence_of_its_own_says_what_is_done_to_what_and_how_long_it_took() {
        let report = serde_json::json!({
            "id": "01K9NXQZ6R3W4V5T8Y2B7C1D0E", "service": "provisioner", "host": "h1", "caller": "anonymous",
            "kind": "rename_vm", "about": "web",
            "state": "done", "steps_done": 4, "steps_total": 4,
            "started": "2026-01-01T00:00:00Z", "updated": "2026-01-01T00:00:02Z"
        });
        let report: OperationReport = serde_json::from_value(report).expect("a report");
        assert_eq!(done(&report, "2 s"), "rename vm web is done after 2 s");
    }
}
