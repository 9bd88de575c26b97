//! The scheduler's decisions: when an appointment falls due, and what to do about those that were missed.
//!
//! ```text
//!   cron text + time zone --read--> Cadence        refused in words: unreadable, unknown zone, never comes to pass
//!                                      |
//!          next_after(instant) --------+-------- due(kept up to, now): the one appointment to keep now, if any
//!
//!   schedule + due --operation_for--> OperationId  the same appointment asks with the same id, whoever asks
//! ```
//!
//! **Missed appointments.** Whatever the reason we were late (down, asleep, the clock was set), one run is made if at
//! least one appointment fell due within the last 24 hours and was not kept, and it is made for the latest of them.
//! Older ones are let go.
//!
//! **Daylight saving.** The rules are those of the `croner` crate, pinned by the tests of `cadence`: a fixed time
//! inside the hour that is skipped runs once at its end where it names one minute, and not at all where it names
//! several; a fixed time inside the hour that comes twice runs the first time only; a job with `*` in its minute or
//! hour runs in both. This is not what Vixie's cron does in every case.
//!
//! Time is an argument everywhere; nothing here waits, stores or asks. Next: `scheduler` keeps the appointments.

mod cadence;
mod due;
mod identity;

pub use cadence::{Cadence, CadenceError, TEXT_MAX};
pub use due::{MISSED_MAX, due, goes_beyond};
pub use identity::operation_for;
