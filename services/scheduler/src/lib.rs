//! The scheduler runs commands on schedule: when a schedule fires, the command that it names is sent to its service.
//!
//! ```text
//!   add, remove, list ---> handlers --changes--> Ticker --fire--> Dispatcher --command--> the service it names
//!                             |                 |      |              |
//!                         schedules         schedules clock         runs
//!                          (table)           (table)               (table: who creates the key {schedule}.{due} sends)
//! ```
//!
//! Promises:
//!
//! - a run is made exactly once, also by two schedulers: whoever creates its row sends the command;
//! - a command that was being sent when the process died is sent again, with the same operation id, after its start;
//! - a service that does not answer is tried for up to ten minutes; then the run is recorded as not started, with the
//!   reason;
//! - after the scheduler itself was away, one run is made for the latest one missed within 24 hours;
//! - a command is sent on behalf of whoever added the schedule, with what that caller may do;
//! - the newest hundred runs of a schedule are kept;
//! - one trace spans a run and everything that it starts.
//!
//! It knows no command by name: `commands` finds the type in the catalog. Nor does it know how a run ends: it starts an
//! operation, whose report says the rest. Next: `scheduler-domain` for when a schedule fires, `ticker` for the clock,
//! `dispatcher` for sending.

pub mod actors;
pub mod adapters;
mod commands;
pub mod config;
mod dispatcher;
mod handlers;
mod metrics;
pub mod ports;
mod store;
mod wiring;

use std::sync::Arc;

use bus::Bus;

use crate::actors::Ticker;
use crate::dispatcher::Dispatcher;
use crate::handlers::Handlers;
use crate::ports::Clock;
use crate::store::ScheduleStore;

/// Starts the ticker and opens the service. Call it inside an actix system.
pub fn open(bus: Bus, clock: Arc<dyn Clock>) -> chassis::Service {
    let store = ScheduleStore::of(&bus);
    let dispatcher = Dispatcher::new(bus, store.clone(), Arc::clone(&clock));
    let ticker = Ticker::start(store.clone(), dispatcher, Arc::clone(&clock));
    let handlers = Handlers { store, ticker: ticker.clone(), clock };
    chassis::Service::new(wiring::wiring(), handlers)
        .with_part("schedules", handlers::schedules_check(ticker))
}
