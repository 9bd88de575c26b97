//! Waiting for a transfer slot and giving it back. Whoever takes one gives it back with [`release_slot`], also in an
//! undo.

use std::time::Duration;

use operation::Context;
use saga::{Outputs, StepError};

use super::{permanent, transient};
use crate::actors::{SlotKind, TransferSlotError};
use crate::state::ServiceState;

/// Waiting for other operations: a night of them.
pub(in crate::sagas) const QUEUE_MAX: Duration = Duration::from_secs(24 * 3600);

impl From<TransferSlotError> for StepError {
    fn from(error: TransferSlotError) -> StepError {
        match error {
            TransferSlotError::QueueFull | TransferSlotError::Actor(_) => transient(&error),
            TransferSlotError::Cancelled => permanent(&error),
        }
    }
}

/// Waits for a transfer slot; a no-op where the operation has one.
pub(in crate::sagas) async fn take_slot<C>(
    context: &Context<ServiceState, C>,
    kind: SlotKind,
) -> Result<(), StepError> {
    context.progress.set_waiting_for(Some("a free slot: as many transfers run as may run at once"));
    let taken = context.state.transfer_slots.take(kind, &context.id, &context.cancel).await;
    context.progress.set_waiting_for(None);
    Ok(taken?)
}

/// Step: waits for a slot to copy.
pub(in crate::sagas) async fn queue_copy<C>(
    context: &Context<ServiceState, C>,
    _: &Outputs,
) -> Result<(), StepError> {
    take_slot(context, SlotKind::Copy).await
}

/// Step: waits for a slot to maintain the repository.
pub(in crate::sagas) async fn queue_maintenance<C>(
    context: &Context<ServiceState, C>,
    _: &Outputs,
) -> Result<(), StepError> {
    take_slot(context, SlotKind::Maintenance).await
}

/// Undo, or the end of a step that needs its slot no more: gives it back.
pub(in crate::sagas) async fn release_slot<C>(
    context: &Context<ServiceState, C>,
    _: &Outputs,
) -> Result<(), StepError> {
    Ok(context.state.transfer_slots.release(&context.id).await?)
}

/// Does work with a slot, which may be free again after a crash, and gives it back. After a transient error the
/// repository is refreshed, so that its health says what is wrong.
pub(in crate::sagas) async fn with_slot<C, T>(
    context: &Context<ServiceState, C>,
    kind: SlotKind,
    work: impl Future<Output = Result<T, StepError>>,
) -> Result<T, StepError> {
    take_slot(context, kind).await?;
    let outcome = work.await;
    context.state.transfer_slots.release(&context.id).await?;
    if let Err(StepError::Transient(_)) = &outcome {
        context.state.repository.report_change();
    }
    outcome
}
