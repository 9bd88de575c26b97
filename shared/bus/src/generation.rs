//! Whether a table is still the one of before, or was lost and made anew.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

use crate::metrics;

/// What is known of each table by its canaries.
#[derive(Default)]
pub(crate) struct Generations {
    tables: Mutex<HashMap<&'static str, Known>>,
}

struct Known {
    /// Revision of the last canary; 0 before the first.
    canary: u64,
    generation: watch::Sender<u64>,
}

impl Default for Known {
    fn default() -> Known {
        Known { canary: 0, generation: watch::Sender::new(0) }
    }
}

impl Generations {
    /// The canary that the next one of this table is written over.
    pub(crate) fn canary_of(&self, table: &'static str) -> u64 {
        self.tables().entry(table).or_default().canary
    }

    /// A canary was written.
    pub(crate) fn set_canary(&self, table: &'static str, revision: u64, is_new_table: bool) {
        let mut tables = self.tables();
        let known = tables.entry(table).or_default();
        known.canary = revision;
        if is_new_table {
            metrics::table_lost(table);
            tracing::error!(
                table,
                "the table was lost and made anew; what is known of it in memory is written again"
            );
            known.generation.send_modify(|generation| *generation += 1);
        }
    }

    /// Counts how often this process found the table made anew.
    pub(crate) fn watch(&self, table: &'static str) -> watch::Receiver<u64> {
        self.tables().entry(table).or_default().generation.subscribe()
    }

    fn tables(&self) -> MutexGuard<'_, HashMap<&'static str, Known>> {
        self.tables.lock().expect("no code here panics while it holds the lock")
    }
}
