//! What should be, what is, and what to do about the difference. It keeps no state: it is given everything each time.
//!
//! | record | hypervisor | decision |
//! | --- | --- | --- |
//! | exists, no operation at work | reports something new | observe it |
//! | exists, should run | off | start it, unless others have changed its disks |
//! | exists, should run | paused for lack of space, and there is room | resume it |
//! | exists | does not know it | observe that it is missing; nothing is erased |
//! | exists | does not answer | observe that its state is unknown |
//! | locked by an operation that has ended | | release it |
//! | none | marked, its operation ended undone | remove it |
//! | none | marked, anything else | report it; never touch it |
//!
//! A VM on which an operation is at work is left to that operation.

use std::net::IpAddr;

use contract::provisioner::PauseReason;
use contract::{OperationId, VmName, VmUuid};

use crate::power::{ObservedVmState, PowerState};
use crate::vm::{DesiredPowerState, VmPhase, VmRecord};

/// A VM that the hypervisor has and that carries our mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundVm {
    /// Its UUID.
    pub uuid: VmUuid,
    /// The name in its mark.
    pub vm: VmName,
    /// The operation in its mark.
    pub operation: OperationId,
    /// What it is doing.
    pub power: PowerState,
    /// Its address, where it has one.
    pub address: Option<IpAddr>,
    /// Whether its guest answers.
    pub guest_answers: bool,
    /// Whether it went off in order, where it is off and the hypervisor knows.
    pub off_in_order: Option<bool>,
    /// Whether a disk of it is not the one that its record says.
    pub disks_changed: bool,
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationStatus {
    /// We have no such operation.
    NoSuchOperation,
    /// It has not ended.
    Running,
    /// It is done.
    Done,
    /// It was undone.
    Undone,
    /// It is stuck.
    Stuck,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReconcileAction {
    /// Take over what was observed: before, and now.
    RecordObservation(VmName, ObservedVmState, ObservedVmState),
    /// Start it: it should run and is off.
    StartVm(VmName),
    /// Resume it: it was paused for lack of space, and there is room again.
    ResumeVm(VmName, VmUuid),
    /// Release it: its operation ended and left it locked. This is how it is now.
    ReleaseVmLock(VmName, OperationId, ObservedVmState),
    /// Remove what an undone operation of ours left.
    RemoveLeftoverVm(FoundVm),
    /// Report it: it carries our mark, and we cannot say why it exists.
    ReportOrphanVm(FoundVm),
}

/// Decides. `outcome` says what became of an operation, `has_room` whether the host has room for disks that grow.
pub fn decide<'a>(
    records: impl IntoIterator<Item = &'a VmRecord>,
    found: &[FoundVm],
    outcome: &dyn Fn(&OperationId) -> OperationStatus,
    has_room: bool,
) -> Vec<ReconcileAction> {
    let records: Vec<&VmRecord> = records.into_iter().collect();
    let mut decisions: Vec<ReconcileAction> =
        records.iter().flat_map(|record| about_record(record, found, outcome, has_room)).collect();
    let unknown =
        found.iter().filter(|found| records.iter().all(|record| record.identity.uuid != found.uuid));
    decisions.extend(unknown.map(|found| about_unknown(found, outcome)));
    decisions
}

/// What becomes of the records while the hypervisor does not answer: nobody knows what their VMs are doing.
pub fn without_answer<'a>(records: impl IntoIterator<Item = &'a VmRecord>) -> Vec<ReconcileAction> {
    let unknown = |record: &VmRecord| {
        let before = record.observed().filter(|before| !before.stale)?;
        let now = ObservedVmState { stale: true, ..before };
        Some(ReconcileAction::RecordObservation(record.name().clone(), before, now))
    };
    records.into_iter().filter_map(unknown).collect()
}

fn about_record(
    record: &VmRecord,
    found: &[FoundVm],
    outcome: &dyn Fn(&OperationId) -> OperationStatus,
    has_room: bool,
) -> Vec<ReconcileAction> {
    let name = record.name().clone();
    let now = observed(record, found.iter().find(|found| found.uuid == record.identity.uuid));
    // Reservations and readers belong to other services, whose operations we do not know.
    let worker = match &record.phase {
        VmPhase::Reserved { .. } => return Vec::new(),
        VmPhase::Creating { by, .. } => Some(by),
        VmPhase::Exists { lock, .. } => {
            lock.as_ref().filter(|lock| lock.kind.changes_vm()).map(|lock| &lock.by)
        }
    };
    if let Some(by) = worker {
        return match outcome(by) {
            // An operation that cannot be found may be one that is just beginning.
            OperationStatus::Running | OperationStatus::NoSuchOperation => Vec::new(),
            OperationStatus::Done | OperationStatus::Undone | OperationStatus::Stuck => {
                vec![ReconcileAction::ReleaseVmLock(name, by.clone(), now)]
            }
        };
    }
    let VmPhase::Exists { desired, observed, lock } = &record.phase else {
        return Vec::new();
    };
    let mut decisions = Vec::new();
    if *observed != now {
        decisions.push(ReconcileAction::RecordObservation(name.clone(), *observed, now));
    }
    match now.power {
        PowerState::Off if *desired == DesiredPowerState::Running && lock.is_none() && !now.disks_changed => {
            decisions.push(ReconcileAction::StartVm(name))
        }
        // Also while its disks are read: the reader waits for it.
        PowerState::Paused(PauseReason::NoSpace) if *desired == DesiredPowerState::Running && has_room => {
            decisions.push(ReconcileAction::ResumeVm(name, record.identity.uuid.clone()));
        }
        _ => {}
    }
    decisions
}

/// How a VM is now: what was known of it holds as long as nothing contradicts it.
fn observed(record: &VmRecord, found: Option<&FoundVm>) -> ObservedVmState {
    let Some(found) = found else {
        // Defined again from its record it would not have what its guest wrote to another file.
        let disks_changed = record.observed().is_some_and(|before| before.disks_changed);
        return ObservedVmState { disks_changed, ..ObservedVmState::MISSING };
    };
    let before = record.observed();
    let known = match found.power {
        PowerState::Off => ObservedVmState::off(before, found.off_in_order),
        power => ObservedVmState::after(before, power),
    };
    let known = ObservedVmState { disks_changed: found.disks_changed, stale: false, ..known };
    if found.power != PowerState::Running {
        return known;
    }
    // While nobody looked it may have been started anew, with another address.
    let (ready, address) = match before.is_some_and(|before| before.stale) {
        true => (false, None),
        false => (known.ready, known.address),
    };
    ObservedVmState {
        ready: ready || (found.guest_answers && found.address.is_some()),
        // A DHCP lease that is not shown for a moment is not lost.
        address: found.address.or(address),
        ..known
    }
}

fn about_unknown(found: &FoundVm, outcome: &dyn Fn(&OperationId) -> OperationStatus) -> ReconcileAction {
    if outcome(&found.operation) == OperationStatus::Undone {
        ReconcileAction::RemoveLeftoverVm(found.clone())
    } else {
        ReconcileAction::ReportOrphanVm(found.clone())
    }
}

#[cfg(test)]
mod tests;
