//! Work on the whole repository that only one host does at a time, under a lease. It is given back with
//! [`release_maintenance`], also in an undo; after a crash it expires, or is taken again by the operation that goes on.

use std::time::Duration;

use contract::message::with_causes;
use operation::Context;
use saga::{Outputs, StepError};

use super::slots::{queue_maintenance, release_slot, with_slot};
use crate::actors::SlotKind;
use crate::adapters::lease::{LEASE, TakeLeaseOutcome};
use crate::state::ServiceState;

/// Between two attempts to take a lease that another host has.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Step: waits for a slot to maintain the repository, then until no other host does.
pub(in crate::sagas) async fn queue_alone<C>(
    context: &Context<ServiceState, C>,
    outputs: &Outputs,
) -> Result<(), StepError> {
    queue_maintenance(context, outputs).await?;
    take_lease(context).await
}

/// Undo: gives slot and lease back.
pub(in crate::sagas) async fn release_maintenance<C>(
    context: &Context<ServiceState, C>,
    outputs: &Outputs,
) -> Result<(), StepError> {
    release_slot(context, outputs).await?;
    give_back(context).await;
    Ok(())
}

/// Does work with a maintenance slot and the lease, and gives both back. Where the lease is lost the work is cut off.
pub(in crate::sagas) async fn with_lease<C, T>(
    context: &Context<ServiceState, C>,
    work: impl Future<Output = Result<T, StepError>>,
) -> Result<T, StepError> {
    take_lease(context).await?;
    let outcome = tokio::select! {
        outcome = with_slot(context, SlotKind::Maintenance, work) => outcome,
        lost = lease_lost(context) => Err(lost),
    };
    context.state.transfer_slots.release(&context.id).await?;
    give_back(context).await;
    outcome
}

async fn take_lease<C>(context: &Context<ServiceState, C>) -> Result<(), StepError> {
    loop {
        let waiting = match context.state.maintenance.take(&context.id).await {
            Ok(TakeLeaseOutcome::Taken) => break,
            Ok(TakeLeaseOutcome::Held(lease)) => {
                format!("operation {} on host {}, which maintains the repository", lease.holder, lease.host)
            }
            Err(error) => with_causes(&error),
        };
        context.progress.set_waiting_for(Some(&waiting));
        tokio::select! {
            () = tokio::time::sleep(POLL_INTERVAL) => {}
            () = context.cancel.cancelled() => return Err(StepError::Permanent("cancelled".into())),
        }
    }
    context.progress.set_waiting_for(None);
    Ok(())
}

/// Renews the lease; returns when it is another's, or has not been renewed for as long as it lasts.
async fn lease_lost<C>(context: &Context<ServiceState, C>) -> StepError {
    let mut renewed = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(LEASE / 4).await;
        match context.state.maintenance.take(&context.id).await {
            Ok(TakeLeaseOutcome::Taken) => renewed = tokio::time::Instant::now(),
            Ok(TakeLeaseOutcome::Held(lease)) => {
                return StepError::Transient(format!("host {} maintains the repository now", lease.host));
            }
            Err(error) if renewed.elapsed() < LEASE * 3 / 4 => {
                tracing::warn!(operation = %context.id, %error, "the lease was not renewed; trying again");
            }
            Err(error) => {
                let why = with_causes(&error);
                return StepError::Transient(format!("the lease on the repository was not renewed: {why}"));
            }
        }
    }
}

/// One that is not given back expires.
async fn give_back<C>(context: &Context<ServiceState, C>) {
    if let Err(error) = context.state.maintenance.give_back(&context.id).await {
        tracing::debug!(operation = %context.id, %error, "the lease was not given back");
    }
}
