//! The power state of a VM when an operation began, and how it is restored.

use contract::provisioner::PauseReason;
use provisioner_domain::PowerState;
use saga::{Outputs, StepError};

use super::{VmCommand, hypervisor_error, locked_record};
use crate::ports::HypervisorErrorKind;
use crate::sagas::Context;

/// Asks the hypervisor, whose answer may be newer than the record.
pub(in crate::sagas) async fn power<C: VmCommand>(
    context: &Context<C>,
    outputs: &Outputs,
) -> Result<PowerState, StepError> {
    let Some(record) = locked_record(outputs)? else {
        return Ok(PowerState::Missing);
    };
    context.state.hypervisor.power(&record.identity.uuid).await.map_err(hypervisor_error)
}

/// Brings a VM back to the power state that the step `power` found. What was on runs again, or boots again where it was
/// ended; whether its guest answers is for the reconciler to find out.
pub(in crate::sagas) async fn restore_power<C: VmCommand>(
    context: &Context<C>,
    outputs: &Outputs,
) -> Result<(), StepError> {
    let (Some(record), Some(before)) = (locked_record(outputs)?, outputs.find::<PowerState>("power")?) else {
        return Ok(());
    };
    let (hypervisor, uuid) = (&context.state.hypervisor, &record.identity.uuid);
    if !before.is_on() {
        return hypervisor.destroy(uuid).await.map_err(hypervisor_error);
    }
    match hypervisor.start(uuid).await {
        Ok(()) => {}
        Err(error) if error.kind == HypervisorErrorKind::UnknownVm => return Ok(()),
        Err(error) => return Err(hypervisor_error(error)),
    }
    match before {
        // A disk that still fails pauses it again by itself, and with its reason.
        PowerState::Paused(PauseReason::User | PauseReason::Other) => {
            hypervisor.suspend(uuid).await.map_err(hypervisor_error)
        }
        _ => Ok(()),
    }
}
