//! What became of the operations that records and VMs name.

use std::collections::BTreeMap;

use bus::TableError;
use contract::OperationId;
use contract::operation::OperationState;
use operation::Engine;
use provisioner_domain::{FoundVm, Inventory, OperationStatus};

/// The outcomes of all operations that lock a record, or that defined a VM without a record.
pub(super) async fn outcomes(
    engine: &Engine,
    inventory: &Inventory,
    found: &[FoundVm],
) -> Result<BTreeMap<OperationId, OperationStatus>, TableError> {
    let lockers = inventory.vms().filter_map(|record| record.locked_by());
    let is_known = |found: &&FoundVm| inventory.vms().any(|record| record.identity.uuid == found.uuid);
    let creators = found.iter().filter(|found| !is_known(found)).map(|found| &found.operation);
    let mut outcomes = BTreeMap::new();
    for id in lockers.chain(creators) {
        outcomes.insert(id.clone(), outcome_of(engine, id).await?);
    }
    Ok(outcomes)
}

/// What became of one operation.
pub(super) async fn outcome_of(engine: &Engine, id: &OperationId) -> Result<OperationStatus, TableError> {
    let found = match engine.find(id).await {
        // What it locks stays locked, what it set aside is kept.
        Err(TableError::Unreadable { .. }) => return Ok(OperationStatus::Running),
        found => found?,
    };
    Ok(match found.map(|report| report.state) {
        None => OperationStatus::NoSuchOperation,
        // A row with a state that is not known is unreadable.
        Some(OperationState::Running | OperationState::Undoing | OperationState::Unknown) => {
            OperationStatus::Running
        }
        Some(OperationState::Done) => OperationStatus::Done,
        Some(OperationState::Undone) => OperationStatus::Undone,
        Some(OperationState::Stuck) => OperationStatus::Stuck,
    })
}
