//! Doors to disks: the record of a door, and how long a lease lasts.
//!
//! ```text
//!   row Opening --> machine locked --> disks opened --> row Open --> ... renewed ... --> closed, unlocked, row gone
//! ```
//!
//! The row is written first and removed last, so that whatever a crash leaves open can be found by it. A lease is
//! kept in memory only: after a restart every open door gets one fresh lease, because nobody could renew while we
//! were away.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::provisioner::OpenedDisks;
use contract::{OperationId, Timestamp, VmName};
use serde::{Deserialize, Serialize};

/// How long a door stays open without being renewed: long enough for a reader to restart, short enough for a guest
/// not to fill its host's disk with saved old blocks.
pub const LEASE: Duration = Duration::from_secs(120);

/// A row of the table `doors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoorRecord {
    /// For which operation.
    pub operation: OperationId,
    /// Whose disks.
    pub vm: VmName,
    /// The machine's identity.
    pub uuid: String,
    /// Who serves the disks.
    pub way: DoorWay,
    /// How far it has come.
    pub phase: DoorPhase,
}

/// Who serves the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoorWay {
    /// The hypervisor: the machine runs.
    Running,
    /// A server of ours: the machine is off.
    Off,
}

/// How far a door has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoorPhase {
    /// It is being opened; the guest may be frozen.
    Opening,
    /// It stands open.
    Open(OpenedDisks),
}

/// Who may keep a door open until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leases {
    lasting: Duration,
    until: BTreeMap<OperationId, Timestamp>,
}

impl Leases {
    /// No leases yet; each is going to last so long.
    pub fn lasting(lasting: Duration) -> Leases {
        Leases { lasting, until: BTreeMap::new() }
    }

    /// Gives or renews a lease.
    pub fn grant(&mut self, operation: &OperationId, now: Timestamp) {
        self.until.insert(operation.clone(), now + self.lasting);
    }

    /// Takes a lease back.
    pub fn end(&mut self, operation: &OperationId) {
        self.until.remove(operation);
    }

    /// Who has let his lease run out.
    pub fn run_out(&self, now: Timestamp) -> Vec<OperationId> {
        let over =
            |(operation, until): (&OperationId, &Timestamp)| (*until <= now).then(|| operation.clone());
        self.until.iter().filter_map(over).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_lasts_from_its_last_renewal() {
        let operation = OperationId::from_bits(1);
        let start = chrono::DateTime::UNIX_EPOCH;
        let mut leases = Leases::lasting(LEASE);
        leases.grant(&operation, start);
        assert_eq!(leases.run_out(start + LEASE / 2), []);
        leases.grant(&operation, start + LEASE / 2);
        assert_eq!(leases.run_out(start + LEASE), []);
        let due = leases.run_out(start + LEASE * 3 / 2);
        assert_eq!(due, std::slice::from_ref(&operation));
        leases.end(&operation);
        assert_eq!(leases.run_out(start + LEASE * 9), []);
    }
}
