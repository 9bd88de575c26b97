//! Whether the service's tables are there and can be written: a row that nobody reads is written into each, again and again.
//! Otherwise a full disk under the bus shows only when a command fails.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bus::{Bus, CanaryError};
use contract::Service;
use contract::bucket::{self, KvBucket};
use contract::health::{MISSING_TABLES, TABLE_WRITES};
use contract::message::with_causes;

use crate::health::PartCheck;
use crate::worker::Worker;

/// How soon a table that cannot be written shows.
const INTERVAL: Duration = Duration::from_secs(10);
/// Each write has a deadline of its own; a service has six tables at most.
const ROUND_MAX: Duration = Duration::from_secs(30);

/// Writes to all tables of a service in rounds.
pub(crate) struct TableChecker {
    bus: Bus,
    tables: &'static [KvBucket],
    missing: Arc<Mutex<Vec<&'static str>>>,
}

impl TableChecker {
    /// A checker for a service's tables; nothing where it has none.
    pub(crate) fn of(bus: &Bus, service: Service) -> Option<TableChecker> {
        let tables = bucket::of_service(service);
        (!tables.is_empty()).then(|| TableChecker { bus: bus.clone(), tables, missing: Arc::default() })
    }

    /// A part of the health that names the tables which are missing.
    pub(crate) fn check_missing(&self) -> (&'static str, PartCheck) {
        let missing = Arc::clone(&self.missing);
        let check: PartCheck = Arc::new(move || {
            let names = missing.lock().expect("no code here panics while it holds the lock").join(", ");
            let problem = format!("{names}: `loam bus tables` makes them; what they held is lost");
            Box::pin(std::future::ready((!names.is_empty()).then_some(problem)))
        });
        (MISSING_TABLES, check)
    }
}

impl Worker for TableChecker {
    fn name(&self) -> &'static str {
        TABLE_WRITES
    }
    fn interval(&self) -> Duration {
        INTERVAL
    }
    fn timeout(&self) -> Duration {
        ROUND_MAX
    }
    async fn round(&mut self) -> Result<(), String> {
        let mut missing = Vec::new();
        let mut problem = Ok(());
        for table in self.tables {
            match self.bus.check_table(table).await {
                Ok(()) => {}
                Err(CanaryError::Missing(_)) => missing.push(table.name),
                Err(error) => problem = Err(with_causes(&error)),
            }
        }
        *self.missing.lock().expect("no code here panics while it holds the lock") = missing;
        problem
    }
}
