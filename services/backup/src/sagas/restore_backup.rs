//! A restore: a second machine from a backup, with a new name, MAC and UUID.
//!
//! ```text
//!   resolve   which backup is meant, once and for all
//!   reserve   the provisioner keeps the name and the places of the disks    undo: release them
//!   write     the engine writes each disk as a raw image                    undo: remove what was written
//!   adopt     the provisioner makes the machine; an operation of its own    undo: cancel it, or remove the machine
//! ```

use std::path::Path;
use std::time::Duration;

use backup_domain::{derived_id, plan};
use backup_repository::restore::{ImageError, partial_path};
use backup_repository::{Progress, Repository, RestoreError, Snapshot};
use contract::backup::RestoreBackup;
use contract::provisioner::{AdoptVm, DiskPlace, ReserveVm, ReservedVm};
use contract::{BackupId, OperationId, Request, VmName};
use operation::{Context, Work};
use saga::{Step, StepFuture, Trail, Trouble, output};
use serde::{Deserialize, Serialize};

use super::World;
use super::work::{lasting, leave, metered, passing, repository, resolve_now, snapshot, take};
use crate::actors::Trade;
use crate::adapters::snapshots::backup_of;
use crate::provisioner::{Begin, Child};

/// Reading the list of backups from a slow store.
const RESOLVE_MAX: Duration = Duration::from_secs(150);
/// Two questions: one to the store, one to the provisioner.
const RESERVE_MAX: Duration = Duration::from_secs(300);
/// A large disk over a slow line.
const WRITE_MAX: Duration = Duration::from_secs(48 * 3600);
/// Booting under software emulation, and waiting for the guest to answer.
const BOOT_MAX: Duration = Duration::from_secs(45 * 60);
/// A little more than the wait inside.
const ADOPT_MAX: Duration = Duration::from_secs(60 * 60);
/// How long a cancelled child may take to undo itself, and a machine to be removed.
const UNDO_CHILD_MAX: Duration = Duration::from_secs(10 * 60);

type Here = Context<World, RestoreBackup>;

/// The work that `RestoreBackup` begins.
pub struct Restore;

/// What a restore brings about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredVm {
    /// The machine.
    pub vm: VmName,
    /// The backup that it was made from.
    pub backup: BackupId,
}

impl Work for Restore {
    const KIND: &'static str = RestoreBackup::NAME;
    type World = World;
    type Input = RestoreBackup;

    fn about(input: &RestoreBackup) -> String {
        input.as_vm.to_string()
    }

    fn steps() -> Vec<Step<Here>> {
        vec![
            Step::new("resolve", RESOLVE_MAX, resolve),
            Step::new("reserve", RESERVE_MAX, reserve).undone_by(release),
            Step::new("write", WRITE_MAX, write).undone_by(erase),
            Step::new("adopt", ADOPT_MAX, adopt).undone_by(disown),
        ]
    }
}

fn resolve<'a>(context: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move { output(&resolve_now(&context.world, &context.input.backup).await?) })
}

async fn backup_at_hand(context: &Here, trail: &Trail<'_>) -> Result<(Repository, Snapshot), Trouble> {
    let repository = repository(&context.world).await?;
    let snapshot = snapshot(&repository, &trail.of("resolve")?).await?;
    Ok((repository, snapshot))
}

fn reserve<'a>(context: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let (repository, snapshot) = backup_at_hand(context, trail).await?;
        let kept = repository.definition(&snapshot).map_err(|error| lasting(&error))?;
        let definition =
            plan::restored_definition(&kept, &context.input.as_vm).map_err(|unusable| lasting(&unusable))?;
        let backup = backup_of(&snapshot).map_err(|not_ours| lasting(&not_ours))?;
        let request =
            ReserveVm { definition, disks: plan::disks_of(&backup), operation_id: context.id.clone() };
        let reserved = context.world.provisioner.reserve(&request).await?;
        plan::check_host(&context.world.host, &reserved.host).map_err(|unusable| lasting(&unusable))?;
        output(&reserved)
    })
}

fn release<'a>(context: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        context.world.provisioner.release(&context.input.as_vm, &context.id).await?;
        context.world.metrics.restored("undone");
        output(&())
    })
}

fn write<'a>(context: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let reserved: ReservedVm = trail.of("reserve")?;
        take(context, Trade::Read).await?;
        let written = write_all(context, trail, &reserved.disks).await;
        leave(context).await?;
        if let Err(Trouble::Passing(_)) = &written {
            context.world.library.look_again().await;
        }
        output(&written?)
    })
}

async fn write_all(context: &Here, trail: &Trail<'_>, places: &[DiskPlace]) -> Result<(), Trouble> {
    let (repository, snapshot) = backup_at_hand(context, trail).await?;
    let progress = Progress::new().into();
    let work = async {
        for DiskPlace { disk, path } in places {
            // An image has its name only when it is whole: an earlier attempt of this step wrote it.
            if is_there(path).await? {
                continue;
            }
            repository
                .restore_disk(&snapshot, disk.as_str(), path, &progress, &context.cancel)
                .await
                .map_err(|error| in_trouble(&error))?;
        }
        Ok(())
    };
    metered(&context.meter, &progress, work).await
}

fn in_trouble(error: &RestoreError) -> Trouble {
    match error {
        RestoreError::Read(
            backup_repository::ReadError::Store(_) | backup_repository::ReadError::Index(_),
        )
        | RestoreError::Image(ImageError::Busy { .. }) => passing(error),
        _ => lasting(error),
    }
}

async fn is_there(path: &Path) -> Result<bool, Trouble> {
    tokio::fs::try_exists(path)
        .await
        .map_err(|error| Trouble::Final(format!("looking at {}: {error}", path.display())))
}

fn erase<'a>(context: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        leave(context).await?;
        let places = trail.if_done::<ReservedVm>("reserve").map(|reserved| reserved.disks);
        for place in places.unwrap_or_default() {
            for path in [place.path.clone(), partial_path(&place.path)] {
                match tokio::fs::remove_file(&path).await {
                    Ok(()) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => {
                        return Err(Trouble::Passing(format!("removing {}: {error}", path.display())));
                    }
                }
            }
        }
        output(&())
    })
}

/// The provisioner's operation that makes the machine.
fn child(context: &Here) -> OperationId {
    derived_id(&context.id, "adopt")
}

fn adopt<'a>(context: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let (provisioner, id) = (&context.world.provisioner, child(context));
        if provisioner.operation(&id).await?.is_none() {
            let request = AdoptVm {
                vm: context.input.as_vm.clone(),
                reserved_by: context.id.clone(),
                operation_id: id.clone(),
            };
            provisioner.adopt(&request).await?;
        }
        let outcome = tokio::select! {
            outcome = provisioner.outcome(&id, BOOT_MAX) => outcome?,
            // The undo cancels the child and waits for it.
            () = context.cancel.cancelled() => return Err(Trouble::Final("given up".into())),
        };
        match outcome {
            Child::Done => {
                context.world.metrics.restored("done");
                output(&RestoredVm { vm: context.input.as_vm.clone(), backup: trail.of("resolve")? })
            }
            Child::Undone(why) | Child::Stuck(why) => {
                Err(Trouble::Final(format!("the vm was not made: {why}")))
            }
            Child::Unknown => Err(Trouble::Passing("the provisioner forgot what it had begun".into())),
        }
    })
}

/// Leaves no machine: the child undoes itself when cancelled; where it had ended already, the machine is removed.
fn disown<'a>(context: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let (provisioner, id) = (&context.world.provisioner, child(context));
        provisioner.cancel(&id).await?;
        match provisioner.outcome(&id, UNDO_CHILD_MAX).await? {
            Child::Unknown | Child::Undone(_) => output(&()),
            Child::Stuck(why) => {
                Err(Trouble::Final(format!("the provisioner's operation {id} is stuck: {why}")))
            }
            Child::Done => {
                remove(context).await?;
                output(&())
            }
        }
    })
}

async fn remove(context: &Here) -> Result<(), Trouble> {
    let (provisioner, id) = (&context.world.provisioner, derived_id(&context.id, "remove"));
    if provisioner.operation(&id).await?.is_none()
        && provisioner.remove(&context.input.as_vm, &id).await? == Begin::NothingToDo
    {
        return Ok(());
    }
    match provisioner.outcome(&id, UNDO_CHILD_MAX).await? {
        Child::Done => Ok(()),
        Child::Unknown => Err(Trouble::Passing("the provisioner forgot what it had begun".into())),
        Child::Undone(why) | Child::Stuck(why) => {
            Err(Trouble::Final(format!("vm {} was not removed: {why}", context.input.as_vm)))
        }
    }
}
