//! Shuts a VM down, by force where its guest does not want to.

use std::time::Duration;

use contract::provisioner::{StopVm, Vm};
use operation::Saga;
use provisioner_domain::{ObservedVmState, VmLockKind};
use saga::{Outputs, Step, StepError};

use super::steps::{self, HYPERVISOR_RETRY, QUICK, VmLockingCommand, hypervisor_call};
use crate::state::ServiceState;

/// Three minutes of asking, and the time to end it by force.
const SHUTDOWN_MAX: Duration = Duration::from_secs(360);

type Context = super::Context<StopVm>;

impl VmLockingCommand for StopVm {
    const KIND: VmLockKind = VmLockKind::Stopping;
}

impl Saga<ServiceState> for StopVm {
    fn steps() -> Vec<Step<Context>> {
        vec![
            Step::new("lock", QUICK, steps::lock).undone_by(steps::unlock),
            hypervisor_call("power", steps::power),
            Step::new("shut_down", SHUTDOWN_MAX, steps::shut_down)
                .undone_by(steps::restore_power)
                .retrying_for(HYPERVISOR_RETRY),
            Step::new("complete", QUICK, complete).undone_by(steps::revert_complete),
        ]
    }
}

async fn complete(context: &Context, outputs: &Outputs) -> Result<Vm, StepError> {
    let off: ObservedVmState = outputs.get("shut_down")?;
    steps::complete_as(context, off, None).await
}
