//! Locking a VM for an operation, and freeing it.

use contract::OperationId;
use operation::{declined_error, failure_error};
use provisioner_domain::{VmRecord, VmTransition};
use saga::{Outputs, StepError};

use super::{VmCommand, VmLockingCommand};
use crate::sagas::Context;

/// Locks a VM that exists; its record as locked.
pub(in crate::sagas) async fn lock<C: VmLockingCommand>(
    context: &Context<C>,
    _: &Outputs,
) -> Result<VmRecord, StepError> {
    apply(context, VmTransition::Begin { by: context.id.clone(), kind: C::KIND }).await
}

/// Frees it, as it was before; a no-op where the operation does not hold it.
pub(in crate::sagas) async fn unlock<C: VmCommand>(
    context: &Context<C>,
    _: &Outputs,
) -> Result<(), StepError> {
    if own_record(context).await?.is_some() {
        apply(context, VmTransition::RevertBegin { by: context.id.clone() }).await?;
    }
    Ok(())
}

/// The record as the first step locked it; none where that step was not done.
pub(in crate::sagas) fn locked_record(outputs: &Outputs) -> Result<Option<VmRecord>, StepError> {
    outputs.find("lock")
}

/// Makes a transition of the command's VM.
pub(in crate::sagas) async fn apply<C: VmCommand>(
    context: &Context<C>,
    transition: VmTransition,
) -> Result<VmRecord, StepError> {
    let applied = context.state.registry.apply(context.command.vm(), transition);
    applied.await.map_err(declined_error)
}

/// The record of the command's VM, as long as this operation holds it or was the last to complete on it.
pub(in crate::sagas) async fn own_record<C: VmCommand>(
    context: &Context<C>,
) -> Result<Option<VmRecord>, StepError> {
    let found = context.state.registry.find(context.command.vm()).await.map_err(failure_error)?;
    Ok(found.filter(|record| is_of(record, &context.id)))
}

fn is_of(record: &VmRecord, operation: &OperationId) -> bool {
    let owner = record.locked_by().or(record.last_completed_operation.as_ref());
    owner == Some(operation)
}
