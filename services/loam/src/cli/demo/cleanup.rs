//! Removes what the demo made, now or in an earlier run, and nothing else.

use std::time::Duration;

use contract::operation::OperationReport;
use contract::provisioner::{GetVm, ListSeeds, ListVms, RemoveSeed, RemoveVm};
use contract::scheduler::{ListSchedules, RemoveSchedule};
use contract::{ScheduleId, SeedName, Service, VmName};

use tokio::time::Instant;

use super::super::exit::{CliError, CliExitCode};
use super::super::session::Session;
use super::super::watch::outcome;
use super::guest::MARK;

/// How long an operation of an earlier run or of a schedule may lock a VM.
const LOCKED_MAX: Duration = Duration::from_secs(300);
const BETWEEN: Duration = Duration::from_millis(500);

/// The names that the demo uses.
pub(super) struct DemoNames {
    pub(super) seed: SeedName,
    pub(super) web_vm: VmName,
    pub(super) copy: VmName,
    pub(super) schedule: ScheduleId,
}

impl DemoNames {
    pub(super) fn fixed() -> DemoNames {
        const FITS: &str = "a fixed name that fits";
        DemoNames {
            seed: SeedName::new("loam-demo").expect(FITS),
            web_vm: VmName::new("web").expect(FITS),
            copy: VmName::new("web2").expect(FITS),
            schedule: ScheduleId::new("loam-demo").expect(FITS),
        }
    }
}

/// Removes schedule and VMs; returns what was removed.
pub(super) async fn vms(session: &Session, names: &DemoNames) -> Result<Vec<String>, CliError> {
    let mut removed = Vec::new();
    let schedules = session.request(ListSchedules {}).await?;
    if schedules.iter().any(|status| status.schedule.id == names.schedule) {
        session.request(RemoveSchedule { id: names.schedule.clone() }).await?;
        removed.push(format!("schedule {}", names.schedule));
    }
    for vm in session.request(ListVms {}).await? {
        let name = vm.definition.name.clone();
        if name != names.web_vm && name != names.copy {
            continue;
        }
        // The list has no names of variables, and the mark is one.
        let vm = session.request(GetVm { vm: name.clone() }).await?;
        if !vm.variables.iter().any(|name| name == MARK) {
            let message =
                format!("there is a vm {name} that the demo did not create; it needs that name for itself");
            return Err(CliError::new(CliExitCode::Refused, message));
        }
        if let Some(operation) = &vm.locked_by {
            wait_for(session, operation).await?;
        }
        remove(session, name.clone()).await?;
        removed.push(format!("vm {name}"));
    }
    Ok(removed)
}

/// Removes the seed, unless it has the digest that is wanted.
pub(super) async fn seed(session: &Session, names: &DemoNames, wanted: Option<&str>) -> Result<(), CliError> {
    let seeds = session.request(ListSeeds {}).await?;
    match seeds.into_iter().find(|seed| seed.name == names.seed) {
        Some(seed) if Some(seed.sha256.as_str()) != wanted => {
            session.request(RemoveSeed { name: names.seed.clone(), host: None }).await.map(drop)
        }
        _ => Ok(()),
    }
}

/// A backup that is under way locks the VM for a while.
async fn remove(session: &Session, vm: VmName) -> Result<OperationReport, CliError> {
    let until = Instant::now() + LOCKED_MAX;
    let begun = loop {
        let command = RemoveVm { vm: vm.clone(), operation_id: Some(operation::new_id()) };
        match session.request(command).await {
            Err(error) if error.exit() == CliExitCode::Refused && Instant::now() < until => {
                tokio::time::sleep(BETWEEN).await;
            }
            answer => break answer?,
        }
    };
    outcome(session, Service::Provisioner, begun.operation()).await
}

/// Waits for the end of an operation of an earlier run, whatever that is.
async fn wait_for(session: &Session, id: &contract::OperationId) -> Result<(), CliError> {
    for service in [Service::Provisioner, Service::Backup] {
        match outcome(session, service, id).await {
            // It is an operation of the other service.
            Err(error) if error.exit() == CliExitCode::Refused => {}
            Err(error) if error.exit() == CliExitCode::Unreachable => return Err(error),
            Ok(_) | Err(_) => return Ok(()),
        }
    }
    Ok(())
}
