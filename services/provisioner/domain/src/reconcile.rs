//! What should be, what is, and what to do about the difference. Takes no hints: it is given everything each time.
//!
//! | record | hypervisor | decision |
//! | --- | --- | --- |
//! | living, nobody at work | says something new | take it over |
//! | living, should run | off | start it |
//! | living | unknown there | say that it is missing; nothing is erased |
//! | locked by an operation that has ended | | free it |
//! | none | marked, its operation ended undone | clean it away |
//! | none | marked, anything else | report it; never touch it |
//!
//! Machines on which an operation is at work are left to it.

use std::net::IpAddr;

use contract::{OperationId, VmName};

use crate::vm::{Desired, Phase, Seen, VmRecord, WorkKind};

/// A marked machine as the hypervisor has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Its UUID.
    pub uuid: String,
    /// The name in its mark.
    pub vm: String,
    /// The operation in its mark.
    pub operation: String,
    /// What it is doing.
    pub power: ObservedPower,
}

/// What a machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObservedPower {
    /// It runs.
    Running {
        /// Its address, where it has one.
        address: Option<IpAddr>,
        /// Whether its agent answers.
        answers: bool,
    },
    /// It is off.
    Off,
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// We have no such operation.
    Unknown,
    /// It is under way.
    UnderWay,
    /// It is done.
    Done,
    /// It was undone.
    Undone,
    /// It is stuck.
    Stuck,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Take over what was seen: the first before, the second now.
    See(VmName, Seen, Seen),
    /// It should run and is off.
    Start(VmName),
    /// Its operation ended and left it locked; this is how it is.
    Release(VmName, OperationId, Seen),
    /// A leftover of an undone operation of ours.
    Clean(Observed),
    /// It carries our mark and we cannot tell why it is here.
    Report(Observed),
}

/// Decides.
pub fn decide<'a>(
    records: impl IntoIterator<Item = &'a VmRecord>,
    observed: &[Observed],
    fate: &dyn Fn(&OperationId) -> Fate,
) -> Vec<Decision> {
    let records: Vec<&VmRecord> = records.into_iter().collect();
    let mut decisions: Vec<Decision> =
        records.iter().flat_map(|record| about_record(record, observed, fate)).collect();
    let unknown =
        observed.iter().filter(|found| records.iter().all(|record| record.identity.uuid != found.uuid));
    decisions.extend(unknown.map(|found| about_stranger(found, fate)));
    decisions
}

fn about_record(
    record: &VmRecord,
    observed: &[Observed],
    fate: &dyn Fn(&OperationId) -> Fate,
) -> Vec<Decision> {
    let name = record.name().clone();
    let found = observed.iter().find(|found| found.uuid == record.identity.uuid);
    let now = seen(record, found);
    // Reservations and readers belong to other services; their operations are not in our books.
    let worker = match &record.phase {
        Phase::Reserved { .. } => return Vec::new(),
        Phase::Creating { by, .. } => Some(by),
        Phase::Living { work, .. } => {
            work.as_ref().filter(|work| work.kind != WorkKind::Reading).map(|work| &work.by)
        }
    };
    if let Some(by) = worker {
        return match fate(by) {
            // An operation that nobody can find may be one that was just begun.
            Fate::UnderWay | Fate::Unknown => Vec::new(),
            Fate::Done | Fate::Undone | Fate::Stuck => vec![Decision::Release(name, by.clone(), now)],
        };
    }
    let Phase::Living { desired, seen, work } = &record.phase else {
        return Vec::new();
    };
    let mut decisions = Vec::new();
    if *seen != now {
        decisions.push(Decision::See(name.clone(), *seen, now));
    }
    if *desired == Desired::Running && now == Seen::Off && work.is_none() {
        decisions.push(Decision::Start(name));
    }
    decisions
}

/// What to think of a machine: what it was known for counts, as long as nothing speaks against it.
fn seen(record: &VmRecord, found: Option<&Observed>) -> Seen {
    let before = match record.phase {
        Phase::Living { seen, .. } => Some(seen),
        _ => None,
    };
    match (found.map(|found| found.power), before) {
        (None, _) => Seen::Missing,
        (Some(ObservedPower::Off), _) => Seen::Off,
        (
            Some(ObservedPower::Running { address, answers }),
            Some(Seen::Running { ready, address: known }),
        ) => {
            Seen::Running {
                ready: ready || (answers && address.is_some()),
                // A lease that is not told for a moment is not lost.
                address: address.or(known),
            }
        }
        (Some(ObservedPower::Running { address, answers }), _) => {
            Seen::Running { ready: answers && address.is_some(), address }
        }
    }
}

fn about_stranger(found: &Observed, fate: &dyn Fn(&OperationId) -> Fate) -> Decision {
    let ended_undone = OperationId::new(found.operation.clone()).is_ok_and(|id| fate(&id) == Fate::Undone);
    if ended_undone { Decision::Clean(found.clone()) } else { Decision::Report(found.clone()) }
}

#[cfg(test)]
mod tests;
