//! The actor of the scheduler, with the size of its mailbox.
//!
//! ```text
//!   handlers --(256): ScheduleAdded, ScheduleRemoved, GetStoreProblem--> Ticker --fire--> dispatcher
//!                                                                          ^                   |
//!                                                                          +--- FireOutcome ---+
//! ```
//!
//! It keeps in memory only what the store can give back.

mod ticker;

pub use ticker::Ticker;
pub(crate) use ticker::{GetStoreProblem, ScheduleAdded, ScheduleRemoved};
