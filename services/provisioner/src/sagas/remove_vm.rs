//! Removes a VM with its disks.
//!
//! Nothing is destroyed for good here: the disks are set aside, and the reconciler discards them once this operation is
//! done. Until its last step it can be undone, and the VM is as it was.

use bus::ErrorReply;
use contract::provisioner::RemoveVm;
use operation::{Saga, declined_error};
use provisioner_domain::{VmLockKind, VmRecord};
use saga::{Outputs, Step, StepError};

use super::steps::{self, QUICK, VmLockingCommand, disk_error, hypervisor_call, hypervisor_error};
use crate::state::ServiceState;

type Context = super::Context<RemoveVm>;

impl VmLockingCommand for RemoveVm {
    const KIND: VmLockKind = VmLockKind::Removing;
}

impl Saga<ServiceState> for RemoveVm {
    fn steps() -> Vec<Step<Context>> {
        vec![
            Step::new("lock", QUICK, steps::lock).undone_by(steps::unlock),
            hypervisor_call("power", steps::power),
            // The data are removed, too: nothing has to be written out, so the guest is not asked.
            hypervisor_call("power_off", steps::destroy).undone_by(steps::restore_power),
            hypervisor_call("definition", definition),
            hypervisor_call("undefine", undefine).undone_by(define_again),
            Step::new("set_aside", QUICK, set_aside).undone_by(bring_back),
            Step::new("forget", QUICK, forget).undone_by(remember),
        ]
    }
}

async fn undefine(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    let record: VmRecord = outputs.get("lock")?;
    context.state.hypervisor.undefine(&record.identity.uuid).await.map_err(hypervisor_error)
}

/// What others have changed in it must not be lost where the removal is undone.
async fn definition(context: &Context, outputs: &Outputs) -> Result<Option<String>, StepError> {
    let record: VmRecord = outputs.get("lock")?;
    context.state.hypervisor.definition(&record.identity.uuid).await.map_err(hypervisor_error)
}

async fn define_again(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    let (Some(record), Some(definition)) =
        (steps::locked_record(outputs)?, outputs.find::<Option<String>>("definition")?.flatten())
    else {
        return Ok(());
    };
    let defined = context.state.hypervisor.restore_definition(&record.identity.uuid, &definition);
    defined.await.map_err(hypervisor_error)
}

async fn set_aside(context: &Context, _: &Outputs) -> Result<(), StepError> {
    context.state.disks.set_aside(&context.command.vm, &context.id).await.map_err(disk_error)
}

async fn bring_back(context: &Context, _: &Outputs) -> Result<(), StepError> {
    context.state.disks.bring_back(&context.command.vm, &context.id).await.map_err(disk_error)
}

async fn forget(context: &Context, _: &Outputs) -> Result<bool, StepError> {
    context.state.registry.forget(&context.command.vm, &context.id).await.map_err(declined_error)
}

async fn remember(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    let locked: VmRecord = outputs.get("lock")?;
    match context.state.registry.remember(locked).await {
        Ok(_) => Ok(()),
        Err(ErrorReply::Refused(_)) => {
            Err(StepError::Permanent(format!("another VM {} was created meanwhile", context.command.vm)))
        }
        Err(declined) => Err(declined_error(declined)),
    }
}
