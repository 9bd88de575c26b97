//! Shuts a VM down, by force where its guest does not want to.

use std::time::Duration;

use contract::provisioner::{self, Vm};
use operation::Saga;
use provisioner_domain::{Observed, VmTransition};
use saga::{Outputs, Step, StepError};

use super::steps::{self, HYPERVISOR_CALL, HYPERVISOR_RETRY, QUICK};
use crate::state::ServiceState;

/// Three minutes of asking, and the time to end it by force.
const SHUTDOWN_MAX: Duration = Duration::from_secs(360);

/// The saga.
pub struct StopVm;
type Context = super::Context<provisioner::StopVm>;

impl Saga for StopVm {
    type Command = provisioner::StopVm;
    type State = ServiceState;
    fn steps() -> Vec<Step<Context>> {
        vec![
            Step::new("lock", QUICK, steps::lock).undone_by(steps::unlock),
            Step::new("power", HYPERVISOR_CALL, steps::power).retrying_for(HYPERVISOR_RETRY),
            Step::new("shut_down", SHUTDOWN_MAX, steps::shut_down)
                .undone_by(steps::restore_power)
                .retrying_for(HYPERVISOR_RETRY),
            Step::new("complete", QUICK, complete).undone_by(steps::reopen),
        ]
    }
}

async fn complete(context: &Context, _: &Outputs) -> Result<Vm, StepError> {
    let by = context.id.clone();
    let done = VmTransition::Complete { by, observed: Observed::OFF, host_key: None };
    Ok(steps::apply(context, done).await?.outline(&context.state.hypervisor.info()))
}
