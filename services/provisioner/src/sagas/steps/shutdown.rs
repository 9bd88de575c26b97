//! Shutting a guest down: its agent is asked, then the power button is pressed, then the VM is ended by force.

use std::time::{Duration, Instant};

use contract::VmUuid;
use provisioner_domain::{ObservedVmState, PowerState, VmRecord};
use saga::{Outputs, StepError};

use super::{VmCommand, hypervisor_error};
use crate::ports::{GuestShutdownMethod, HypervisorError, HypervisorErrorKind};
use crate::sagas::Context;

/// Shuts the locked record's VM down, and returns how it is then. It may take as long as the limits give agent and power
/// button.
pub(in crate::sagas) async fn shut_down<C: VmCommand>(
    context: &Context<C>,
    outputs: &Outputs,
) -> Result<ObservedVmState, StepError> {
    let record: VmRecord = outputs.get("lock")?;
    end(context, outputs, &record).await?;
    let in_order = context.state.hypervisor.went_off_in_order(&record.identity.uuid).await;
    Ok(ObservedVmState::off(record.observed(), in_order.map_err(hypervisor_error)?))
}

async fn end<C: VmCommand>(
    context: &Context<C>,
    outputs: &Outputs,
    record: &VmRecord,
) -> Result<(), StepError> {
    let uuid = &record.identity.uuid;
    let (hypervisor, limits) = (&context.state.hypervisor, &context.state.limits);
    if matches!(outputs.get("power")?, PowerState::Paused(_)) {
        // A paused guest cannot shut down. Where it cannot run either, it is ended by force below.
        hypervisor.resume(uuid).await.or_else(unless_unavailable)?;
    }
    for (mode, timeout) in [
        (GuestShutdownMethod::Agent, limits.agent_shutdown_max),
        (GuestShutdownMethod::Acpi, limits.acpi_shutdown_max),
    ] {
        // Without an agent, or where the request is refused, the next way is tried.
        match hypervisor.request_shutdown(uuid, mode).await {
            Ok(()) if is_off_within(context, uuid, timeout).await? => return Ok(()),
            Ok(()) => {}
            Err(error) => unless_unavailable(error)?,
        }
    }
    hypervisor.destroy(uuid).await.map_err(hypervisor_error)
}

fn unless_unavailable(error: HypervisorError) -> Result<(), StepError> {
    match error.kind {
        HypervisorErrorKind::Unavailable => Err(hypervisor_error(error)),
        _ => Ok(()),
    }
}

async fn is_off_within<C: VmCommand>(
    context: &Context<C>,
    uuid: &VmUuid,
    timeout: Duration,
) -> Result<bool, StepError> {
    let until = Instant::now() + timeout;
    loop {
        match context.state.hypervisor.power(uuid).await {
            Ok(PowerState::Off | PowerState::Missing) => return Ok(true),
            // Paused again, for lack of space: it cannot shut down.
            Ok(PowerState::Paused(_)) => return Ok(false),
            Ok(PowerState::Running) => {}
            Err(error) if error.kind == HypervisorErrorKind::Unavailable => {}
            Err(error) => return Err(hypervisor_error(error)),
        }
        if context.cancel.is_cancelled() {
            return Err(StepError::Permanent("cancelled while waiting for the VM to shut down".into()));
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        tokio::time::sleep(context.state.limits.guest_poll_interval).await;
    }
}
