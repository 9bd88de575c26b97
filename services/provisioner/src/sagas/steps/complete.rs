//! Writing the result of an operation into the record of its VM, and taking that back.

use contract::provisioner::Vm;
use provisioner_domain::{ObservedVmState, VmTransition};
use saga::{Outputs, StepError};

use super::{Ready, VmCommand, apply, locked_record, own_record};
use crate::sagas::Context;

/// The VM runs and its guest answers, as the step `ready` found; the VM as lists show it.
pub(in crate::sagas) async fn complete<C: VmCommand>(
    context: &Context<C>,
    outputs: &Outputs,
) -> Result<Vm, StepError> {
    let Ready { address, host_key } = outputs.get("ready")?;
    complete_as(context, ObservedVmState::running(true, Some(address)), Some(host_key)).await
}

/// The VM is as the operation observed it; `host_key` where it has seen the guest's. The VM as lists show it.
pub(in crate::sagas) async fn complete_as<C: VmCommand>(
    context: &Context<C>,
    observed: ObservedVmState,
    host_key: Option<String>,
) -> Result<Vm, StepError> {
    let done = VmTransition::Complete { by: context.id.clone(), observed, host_key };
    Ok(apply(context, done).await?.outline(&context.state.hypervisor.info()))
}

/// Back to the record as it was locked.
pub(in crate::sagas) async fn revert_complete<C: VmCommand>(
    context: &Context<C>,
    outputs: &Outputs,
) -> Result<(), StepError> {
    if let (Some(_), Some(locked)) = (own_record(context).await?, locked_record(outputs)?) {
        apply(context, VmTransition::RevertComplete { by: context.id.clone(), locked: locked.phase }).await?;
    }
    Ok(())
}
