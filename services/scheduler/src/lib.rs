//! The scheduler keeps appointments: at its time it asks another service for the work that a schedule names.
//!
//! ```text
//!   add, remove, list ---> Timekeeper --Fire--> Caller --start_backup--> backup
//!                            |    ^                |
//!                       schedules clock           runs
//!                       (table)                   (table: creating the key {schedule}.{due} is the right to fire)
//! ```
//!
//! Promises:
//!
//! - an appointment fires exactly once, also with two schedulers at work: whoever creates its row may ask;
//! - what was being asked for when the process died is asked for again, with the same operation id, after its start;
//! - a backup service that is away is asked again for up to ten minutes; then the appointment is written down as not
//!   kept, with the reason;
//! - after we were away ourselves, one run is made for the latest appointment missed within 24 hours;
//! - the newest hundred runs of a schedule are kept for looking back;
//! - one trace leads from the appointment through everything that it sets in motion.
//!
//! It does not know what a backup is, nor whether it went well: it begins work, and the operation tells the rest.
//! Next: `scheduler-domain` for when an appointment falls due, `actors` for who does what.

pub mod actors;
pub mod adapters;
pub mod config;
mod diary;
mod metrics;
pub mod ports;
mod wiring;

use std::sync::Arc;

use bus::Bus;

use crate::actors::{Caller, Timekeeper};
use crate::diary::Diary;
use crate::ports::Clock;

/// Starts the actors and gives back what answers. Call it inside an actix system.
pub fn open(bus: Bus, clock: Arc<dyn Clock>) -> chassis::Service {
    let diary = Diary::of(&bus);
    let caller = Caller::start(bus, diary.clone(), Arc::clone(&clock));
    let timekeeper = Timekeeper::start(diary, caller, clock);
    chassis::Service {
        endpoints: Some(wiring::endpoints(timekeeper.clone())),
        parts: vec![("schedules", wiring::schedules_check(timekeeper))],
        ..chassis::Service::default()
    }
}
