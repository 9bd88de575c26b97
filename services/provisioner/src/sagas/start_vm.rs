//! Starts a VM that is off, or unknown to the hypervisor though its disks exist; resumes one that is paused.

use contract::provisioner::{PauseReason, StartVm, StartedVm};
use operation::Saga;
use provisioner_domain::{ObservedVmState, PowerState, VmLockKind, VmRecord};
use saga::{Outputs, Step, StepError};

use super::steps::{self, QUICK, READY_MAX, VmLockingCommand, hypervisor_call, hypervisor_error};
use crate::state::ServiceState;

type Context = super::Context<StartVm>;

impl VmLockingCommand for StartVm {
    const KIND: VmLockKind = VmLockKind::Starting;
}

impl Saga<ServiceState> for StartVm {
    fn steps() -> Vec<Step<Context>> {
        vec![
            Step::new("lock", QUICK, steps::lock).undone_by(steps::unlock),
            hypervisor_call("power", steps::power),
            hypervisor_call("start", start).undone_by(steps::restore_power),
            Step::new("ready", READY_MAX, steps::ready),
            Step::new("complete", QUICK, complete).undone_by(steps::revert_complete),
        ]
    }
}

async fn start(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    let (record, before): (VmRecord, PowerState) = (outputs.get("lock")?, outputs.get("power")?);
    let (hypervisor, uuid) = (&context.state.hypervisor, &record.identity.uuid);
    match before {
        PowerState::Running => Ok(()),
        PowerState::Paused(reason) => {
            tracing::info!(vm = %record.name(), %reason, "resuming a paused VM");
            context.state.resume(uuid).await.map_err(hypervisor_error)
        }
        PowerState::Off | PowerState::Missing => {
            if let (PowerState::Missing, Some(problem)) = (before, record.problem()) {
                return Err(StepError::Permanent(problem));
            }
            // Also where it is defined: it may be emulated, and KVM works by now; or others have changed its disks.
            steps::define(context, outputs).await?;
            hypervisor.start(uuid).await.map_err(hypervisor_error)
        }
    }
}

async fn complete(context: &Context, outputs: &Outputs) -> Result<StartedVm, StepError> {
    let vm = steps::complete(context, outputs).await?;
    let resumed_from: Option<PauseReason> =
        ObservedVmState::after(None, outputs.get("power")?).pause_reason();
    Ok(StartedVm { vm, resumed_pause_reason: resumed_from })
}
