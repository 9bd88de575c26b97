//! Disk exports: the record of an export, and its lease.
//!
//! ```text
//!   row Opening --> VM locked --> disks exported --> row Open --> ... renewed ... --> closed, unlocked, row removed
//! ```
//!
//! The row is written first and removed last, so that it finds whatever a crash leaves open. Leases are kept in memory
//! only: after a restart every open export gets a fresh lease, because nobody could renew while we were away.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::provisioner::{Consistency, OpenedDisks};
use contract::{NoPrevious, OperationId, Stored, Timestamp, VmName, VmUuid};
use serde::{Deserialize, Serialize};

/// How long an export stays open without being renewed: long enough for a reader to restart, short enough for a guest
/// not to fill its host's disk with saved old blocks.
pub const LEASE: Duration = Duration::from_secs(120);

/// A row of the table `disk_exports`: the exported disks of one VM for one operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportRecord {
    /// The operation that reads the disks.
    pub operation: OperationId,
    /// The VM whose disks they are.
    pub vm: VmName,
    /// The VM's UUID.
    pub uuid: VmUuid,
    /// What serves the disks.
    pub served_by: ExportServer,
    /// How far it has come.
    pub phase: ExportPhase,
}

impl Stored for ExportRecord {
    const VERSION: u16 = 1;
    type Previous = NoPrevious;

    fn migrate(previous: NoPrevious) -> Self {
        match previous {}
    }

    fn is_known(&self) -> bool {
        match &self.phase {
            ExportPhase::Open(opened) => opened.consistency != Consistency::Unknown,
            ExportPhase::Opening => true,
        }
    }
}

/// What serves the disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportServer {
    /// The hypervisor: the VM is on.
    Hypervisor,
    /// An NBD server that we start: the VM is off.
    NbdServer,
}

/// How far an export has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExportPhase {
    /// It is being opened; the guest may be frozen.
    Opening,
    /// It is open.
    Open(Box<OpenedDisks>),
}

/// The leases of open exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportLeases {
    duration: Duration,
    until: BTreeMap<OperationId, Timestamp>,
}

impl ExportLeases {
    /// No leases yet; each is going to last for `duration`.
    pub fn lasting(duration: Duration) -> ExportLeases {
        ExportLeases { duration, until: BTreeMap::new() }
    }

    /// Grants or renews a lease.
    pub fn grant(&mut self, operation: &OperationId, now: Timestamp) {
        self.until.insert(operation.clone(), now + self.duration);
    }

    /// Ends a lease.
    pub fn end(&mut self, operation: &OperationId) {
        self.until.remove(operation);
    }

    /// The operations whose lease has expired.
    pub fn expired(&self, now: Timestamp) -> Vec<OperationId> {
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
        let mut leases = ExportLeases::lasting(LEASE);
        leases.grant(&operation, start);
        assert_eq!(leases.expired(start + LEASE / 2), []);
        leases.grant(&operation, start + LEASE / 2);
        assert_eq!(leases.expired(start + LEASE), []);
        let due = leases.expired(start + LEASE * 3 / 2);
        assert_eq!(due, std::slice::from_ref(&operation));
        leases.end(&operation);
        assert_eq!(leases.expired(start + LEASE * 9), []);
    }
}
