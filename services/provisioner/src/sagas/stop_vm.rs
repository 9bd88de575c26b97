//! Shuts a machine down: its agent is asked, then the power button pressed, then the plug pulled.

use std::time::{Duration, Instant};

use contract::VmName;
use operation::{Context, Work};
use provisioner_domain::{Observed, VmTransition, VmRecord, WorkKind};
use saga::{Step, StepFuture, Trail, Trouble, output};

use super::{DEED, HYPERVISOR_PATIENCE, MOMENT, ServiceState, of_hypervisor, of_registry, own_record};
use crate::ports::{HypervisorError, Power, ShutdownMode};

/// The saga.
pub struct StopVmWork;

type Here = Context<ServiceState, VmName>;

/// The ladder's three minutes, and the time to pull the plug.
const SHUT_DOWN_LIMIT: Duration = Duration::from_secs(360);

impl Work for StopVmWork {
    const KIND: &'static str = "stop_vm";
    type ServiceState = ServiceState;
    type Input = VmName;

    fn about(vm: &VmName) -> String {
        vm.to_string()
    }

    fn steps() -> Vec<Step<Here>> {
        vec![
            Step::new("lock", MOMENT, lock).undone_by(unlock),
            Step::new("shut_down", SHUT_DOWN_LIMIT, shut_down)
                .undone_by(start_again)
                .with_patience(HYPERVISOR_PATIENCE),
            Step::new("finish", DEED, finish).undone_by(unfinish),
        ]
    }
}

fn lock<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let begin = VmTransition::Begin(here.id.clone(), WorkKind::Stopping);
        let locked = here.state.registry.make(&here.input, begin);
        output(&locked.await.map_err(of_registry)?)
    })
}

fn unlock<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        if own_record(here, &here.input).await?.is_some() {
            let given_up = VmTransition::GiveUp(here.id.clone());
            let given_up = here.state.registry.make(&here.input, given_up);
            given_up.await.map_err(of_registry)?;
        }
        output(&())
    })
}

fn shut_down<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let record: VmRecord = trail.of("lock")?;
        let (state, uuid) = (&here.state, &record.identity.uuid);
        for (way, within) in
            [(ShutdownMode::Agent, state.limits.agent_stop), (ShutdownMode::Acpi, state.limits.button_stop)]
        {
            match state.hypervisor.request_shutdown(uuid, way).await {
                Ok(()) => {
                    if is_off_within(here, uuid, within).await? {
                        return output(&format!("{way:?}"));
                    }
                }
                // No agent to ask, or a guest that hears no button: the next way.
                Err(HypervisorError::AgentSilent(_) | HypervisorError::Failed(_)) => {}
                Err(HypervisorError::Unknown(_)) => return output(&"it was gone"),
                Err(error) => return Err(of_hypervisor(error)),
            }
        }
        state.hypervisor.destroy(uuid).await.map_err(of_hypervisor)?;
        output(&"the plug was pulled")
    })
}

async fn is_off_within(here: &Here, uuid: &str, within: Duration) -> Result<bool, Trouble> {
    let until = Instant::now() + within;
    loop {
        match here.state.hypervisor.power(uuid).await {
            Ok(Some(Power::Off) | None) => return Ok(true),
            Ok(Some(Power::Running)) | Err(HypervisorError::Unavailable(_)) => {}
            Err(error) => return Err(of_hypervisor(error)),
        }
        if here.cancel.is_cancelled() {
            return Err(Trouble::Final("given up while waiting for it to stop".into()));
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        tokio::time::sleep(here.state.limits.look_again).await;
    }
}

/// A machine that was to run runs again; whether it answers is the reconciler's to find out.
fn start_again<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        if let Some(record) = trail.if_done::<VmRecord>("lock")
            && was_running(&record)
        {
            let started = here.state.hypervisor.start(&record.identity.uuid).await;
            match started {
                Ok(()) | Err(HypervisorError::Unknown(_)) => {}
                Err(error) => return Err(of_hypervisor(error)),
            }
        }
        output(&())
    })
}

/// Whether the hypervisor said so when the operation began.
pub(super) fn was_running(locked: &VmRecord) -> bool {
    matches!(locked.phase, provisioner_domain::Phase::Exists { seen: Observed::Running { .. }, .. })
}

fn finish<'a>(here: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let settled = VmTransition::Settle(here.id.clone(), Observed::Off);
        let settled = here.state.registry.make(&here.input, settled);
        let settled = settled.await.map_err(of_registry)?;
        output(&settled.outline(here.state.hypervisor.name()))
    })
}

fn unfinish<'a>(here: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        if own_record(here, &here.input).await?.is_some() {
            let locked: VmRecord = trail.of("lock")?;
            let unsettled = VmTransition::Unsettle(here.id.clone(), locked.phase);
            let unsettled = here.state.registry.make(&here.input, unsettled);
            unsettled.await.map_err(of_registry)?;
        }
        output(&())
    })
}
