//! The actors of the scheduler, with the size of each mailbox.
//!
//! ```text
//!   desk --(256)--> Timekeeper --(64)--> Caller --call--> backup
//!                       ^                   |
//!                       +---- Fired --------+        the answer to Fire
//! ```
//!
//! The Timekeeper knows when, the Caller knows how to ask. Both keep in memory only what the diary can give back.

mod caller;
mod timekeeper;

pub use caller::Caller;
pub use timekeeper::Timekeeper;
pub(crate) use timekeeper::{Add, Remove, Runs, Statuses, TroubleAt};
