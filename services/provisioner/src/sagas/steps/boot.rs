//! Defining and starting a VM that did not exist before, and removing it again.

use saga::{Outputs, StepError};

use super::{VmCommand, hypervisor_error, locked_record};
use crate::sagas::Context;
use crate::vm_spec::vm_spec_of;

/// Defines the locked record's VM.
pub(in crate::sagas) async fn define<C: VmCommand>(
    context: &Context<C>,
    outputs: &Outputs,
) -> Result<(), StepError> {
    let state = &context.state;
    let spec = vm_spec_of(&outputs.get("lock")?, &state.realm, &context.id, state.disks.as_ref());
    state.hypervisor.define(&spec).await.map_err(hypervisor_error)
}

/// Removes its definition, whatever it is doing.
pub(in crate::sagas) async fn undefine<C: VmCommand>(
    context: &Context<C>,
    outputs: &Outputs,
) -> Result<(), StepError> {
    destroy(context, outputs).await?;
    match locked_record(outputs)? {
        Some(record) => {
            context.state.hypervisor.undefine(&record.identity.uuid).await.map_err(hypervisor_error)
        }
        None => Ok(()),
    }
}

/// Starts it.
pub(in crate::sagas) async fn start<C: VmCommand>(
    context: &Context<C>,
    outputs: &Outputs,
) -> Result<(), StepError> {
    let Some(record) = locked_record(outputs)? else {
        return Ok(());
    };
    context.state.hypervisor.start(&record.identity.uuid).await.map_err(hypervisor_error)
}

/// Ends it without asking its guest.
pub(in crate::sagas) async fn destroy<C: VmCommand>(
    context: &Context<C>,
    outputs: &Outputs,
) -> Result<(), StepError> {
    match locked_record(outputs)? {
        Some(record) => {
            context.state.hypervisor.destroy(&record.identity.uuid).await.map_err(hypervisor_error)
        }
        None => Ok(()),
    }
}
