//! A restore: a second VM from a backup, with a new name, MAC address and UUID.
//!
//! ```text
//!   resolve     which backup is meant, once and for all
//!   reserve     the provisioner reserves the name and the paths of the disks   undo: release them
//!   write       the engine writes each disk as a raw image                     undo: remove what was written
//!   create_vm   the provisioner creates the VM; an operation of its own        undo: cancel it, or remove the VM
//! ```

use std::path::Path;
use std::time::Duration;

use backup_domain::{derived_id, plan};
use backup_repository::restore::{ImageError, partial_path};
use backup_repository::{Progress, Repository, RestoreError, Snapshot};
use contract::backup::{RestoreBackupAsVm, RestoredVm};
use contract::provisioner::{CreateReservedVm, DiskPath, ReserveVmName, ReservedVm};
use contract::{BackupId, OperationId};
use operation::Saga;
use saga::{Outputs, Step, StepError};

use super::steps::{
    RESOLVE_MAX, TRANSFER_MAX, permanent, read_error, release_slot, repository, resolve_now, snapshot,
    transient, with_progress, with_slot,
};
use crate::actors::SlotKind;
use crate::adapters::provisioner::{BeginOutcome, ChildOutcome};
use crate::adapters::snapshots::backup_of;
use crate::state::ServiceState;

/// Two requests: one to the store, one to the provisioner.
const RESERVE_MAX: Duration = Duration::from_secs(300);
/// Booting under software emulation, and waiting for the guest to answer.
const BOOT_MAX: Duration = Duration::from_secs(45 * 60);
/// A little more than the wait inside.
const CREATE_MAX: Duration = Duration::from_secs(60 * 60);
/// How long a cancelled child may take to undo itself, and a VM to be removed.
const UNDO_CHILD_MAX: Duration = Duration::from_secs(10 * 60);

type Context = operation::Context<ServiceState, RestoreBackupAsVm>;

impl Saga<ServiceState> for RestoreBackupAsVm {
    fn steps() -> Vec<Step<Context>> {
        vec![
            Step::new("resolve", RESOLVE_MAX, resolve),
            Step::new("reserve", RESERVE_MAX, reserve).undone_by(release),
            Step::new("write", TRANSFER_MAX, write).undone_by(erase),
            Step::new("create_vm", CREATE_MAX, create_vm).undone_by(undo_create_vm),
        ]
    }
}

async fn resolve(context: &Context, _: &Outputs) -> Result<BackupId, StepError> {
    resolve_now(&context.state, &context.command.backup).await
}

async fn resolved(context: &Context, outputs: &Outputs) -> Result<(Repository, Snapshot), StepError> {
    let repository = repository(&context.state).await?;
    let snapshot = snapshot(&repository, &outputs.get("resolve")?).await?;
    Ok((repository, snapshot))
}

async fn reserve(context: &Context, outputs: &Outputs) -> Result<ReservedVm, StepError> {
    let (repository, snapshot) = resolved(context, outputs).await?;
    let kept = repository.definition(&snapshot).map_err(|error| permanent(&error))?;
    let definition =
        plan::restored_definition(&kept, &context.command.as_vm).map_err(|unusable| permanent(&unusable))?;
    let backup = backup_of(&snapshot).map_err(|foreign| permanent(&foreign))?;
    let request = ReserveVmName {
        definition,
        disks: plan::disks_of(&backup),
        overcommit: context.command.overcommit,
        operation_id: context.id.clone(),
    };
    let reserved = context.state.provisioner.reserve(&request).await?;
    plan::check_host(&context.state.host, &reserved.host).map_err(|unusable| permanent(&unusable))?;
    Ok(reserved)
}

async fn release(context: &Context, _: &Outputs) -> Result<(), StepError> {
    context.state.provisioner.release(&context.command.as_vm, &context.id).await?;
    context.state.metrics.restore_undone();
    Ok(())
}

async fn write(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    let reserved: ReservedVm = outputs.get("reserve")?;
    with_slot(context, SlotKind::Read, write_all(context, outputs, &reserved.disks)).await
}

async fn write_all(context: &Context, outputs: &Outputs, places: &[DiskPath]) -> Result<(), StepError> {
    let (repository, snapshot) = resolved(context, outputs).await?;
    let progress = Progress::new().into();
    let work = async {
        for DiskPath { disk, path } in places {
            // An image has its name only when it is whole: an earlier attempt of this step wrote it.
            if exists(path).await? {
                continue;
            }
            repository
                .restore_disk(&snapshot, disk.as_str(), path, &progress, &context.cancel)
                .await
                .map_err(|error| restore_error(&error))?;
        }
        Ok(())
    };
    with_progress(&context.progress, &progress, work).await
}

fn restore_error(error: &RestoreError) -> StepError {
    match error {
        RestoreError::Read(read) => read_error(read, error),
        RestoreError::Image(ImageError::RestoreRunning { .. }) => transient(error),
        _ => permanent(error),
    }
}

async fn exists(path: &Path) -> Result<bool, StepError> {
    let found = tokio::fs::try_exists(path).await;
    found
        .map_err(|error| StepError::Permanent(format!("checking whether {} exists: {error}", path.display())))
}

async fn erase(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    release_slot(context, outputs).await?;
    let places = outputs.find::<ReservedVm>("reserve")?.map(|reserved| reserved.disks);
    for place in places.unwrap_or_default() {
        for path in [place.path.clone(), partial_path(&place.path)] {
            match tokio::fs::remove_file(&path).await {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(StepError::Transient(format!("removing {}: {error}", path.display())));
                }
            }
        }
    }
    Ok(())
}

/// The provisioner's operation that creates the VM.
fn child(context: &Context) -> OperationId {
    derived_id(&context.id, "create_vm")
}

async fn create_vm(context: &Context, outputs: &Outputs) -> Result<RestoredVm, StepError> {
    let (provisioner, id) = (&context.state.provisioner, child(context));
    let vm = context.command.as_vm.clone();
    if provisioner.operation(&id).await?.is_none() {
        let request = CreateReservedVm {
            vm: vm.clone(),
            reserved_by: context.id.clone(),
            operation_id: Some(id.clone()),
        };
        provisioner.create_reserved_vm(&request).await?;
    }
    let outcome = tokio::select! {
        outcome = provisioner.outcome(&id, BOOT_MAX) => outcome?,
        // The undo cancels the child and waits for it.
        () = context.cancel.cancelled() => return Err(StepError::Permanent("cancelled".into())),
    };
    match outcome {
        ChildOutcome::Done => {
            context.state.metrics.restored();
            Ok(RestoredVm { vm, backup: outputs.get("resolve")? })
        }
        ChildOutcome::Undone(why) | ChildOutcome::Stuck(why) => {
            Err(StepError::Permanent(format!("the vm was not created: {why}")))
        }
        ChildOutcome::NeverBegun => Err(forgotten()),
    }
}

fn forgotten() -> StepError {
    StepError::Transient("the provisioner does not know an operation that it had begun".into())
}

/// Leaves no VM: the child undoes itself when cancelled; where it had ended already, the VM is removed.
async fn undo_create_vm(context: &Context, _: &Outputs) -> Result<(), StepError> {
    let (provisioner, id) = (&context.state.provisioner, child(context));
    provisioner.cancel(&id).await?;
    match provisioner.outcome(&id, UNDO_CHILD_MAX).await? {
        ChildOutcome::NeverBegun | ChildOutcome::Undone(_) => Ok(()),
        ChildOutcome::Stuck(why) => {
            Err(StepError::Permanent(format!("the provisioner's operation {id} is stuck: {why}")))
        }
        ChildOutcome::Done => remove(context).await,
    }
}

async fn remove(context: &Context) -> Result<(), StepError> {
    let (provisioner, id) = (&context.state.provisioner, derived_id(&context.id, "remove"));
    let vm = &context.command.as_vm;
    if provisioner.operation(&id).await?.is_none()
        && provisioner.remove(vm, &id).await? == BeginOutcome::NothingToDo
    {
        return Ok(());
    }
    match provisioner.outcome(&id, UNDO_CHILD_MAX).await? {
        ChildOutcome::Done => Ok(()),
        ChildOutcome::NeverBegun => Err(forgotten()),
        ChildOutcome::Undone(why) | ChildOutcome::Stuck(why) => {
            Err(StepError::Permanent(format!("vm {vm} was not removed: {why}")))
        }
    }
}
