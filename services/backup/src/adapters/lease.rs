//! The lease on work that only one host does at a time: each host has a backup service, and all of them have the same
//! repository. The store keeps chunks safe from whoever collects; the lease keeps two hosts from doing the same work.

use std::time::Duration;

use bus::{Bus, Entry, Table, TableError};
use contract::{HostName, NoPrevious, OperationId, Stored, Timestamp, bucket};
use serde::{Deserialize, Serialize};

/// How long a lease lasts without being renewed: as long as a service may take to start again.
pub const LEASE: Duration = Duration::from_secs(120);
/// Forgetting backups and collecting the repository.
const MAINTENANCE: &str = "maintenance";

/// A row of the table `leases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// The operation that does the work.
    pub holder: OperationId,
    /// The host that it runs on.
    pub host: HostName,
    /// When the lease expires.
    pub until: Timestamp,
}

impl Stored for LeaseRecord {
    const VERSION: u16 = 1;
    type Previous = NoPrevious;

    fn migrate(previous: NoPrevious) -> Self {
        match previous {}
    }
}

/// The lease on the maintenance of the repository, as one host takes it.
pub struct MaintenanceLease {
    table: Table<LeaseRecord>,
    host: HostName,
}

/// Whether a lease was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TakeLeaseOutcome {
    /// It was, now or before.
    Taken,
    /// Another operation has it.
    Held(LeaseRecord),
}

impl MaintenanceLease {
    /// The lease on this bus.
    pub fn new(bus: &Bus, host: HostName) -> MaintenanceLease {
        MaintenanceLease { table: bus.table(bucket::LEASES), host }
    }

    /// Takes or renews it for an operation.
    ///
    /// # Errors
    /// When the table cannot be read or written, or another host came first.
    pub async fn take(&self, by: &OperationId) -> Result<TakeLeaseOutcome, TableError> {
        let now = chrono::Utc::now();
        let wanted = LeaseRecord { holder: by.clone(), host: self.host.clone(), until: now + LEASE };
        match self.table.get_from_leader(MAINTENANCE).await? {
            None => self.table.create(MAINTENANCE, &wanted).await?,
            Some(Entry { value, .. }) if value.holder != *by && value.until > now => {
                return Ok(TakeLeaseOutcome::Held(value));
            }
            Some(Entry { revision, .. }) => self.table.update(MAINTENANCE, &wanted, revision).await?,
        };
        Ok(TakeLeaseOutcome::Taken)
    }

    /// Gives it back; a no-op where the operation does not have it.
    ///
    /// # Errors
    /// When the table cannot be read or written.
    pub async fn give_back(&self, by: &OperationId) -> Result<(), TableError> {
        match self.table.get_from_leader(MAINTENANCE).await? {
            Some(Entry { value, revision, .. }) if value.holder == *by => {
                self.table.remove(MAINTENANCE, revision).await
            }
            _ => Ok(()),
        }
    }
}
