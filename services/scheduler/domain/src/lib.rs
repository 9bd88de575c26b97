//! The scheduler's decisions: when a schedule fires, what becomes of missed runs, and which bodies can be scheduled.
//!
//! ```text
//!   cron text + time zone --parse--> CronSchedule   refused in words: unreadable, unknown zone, never fires
//!                                      |
//!          next_after(instant) --------+-------- due(done until, now): the one run to make now, if any
//!
//!   schedule + due --operation_for--> OperationId   a run has the same id whichever scheduler sends it
//!
//!   schema + body --check_body--> no unknown field, no secret
//! ```
//!
//! **Missed runs.** Whatever the reason (the scheduler was down, the host asleep, the clock was set), one run is made
//! if at least one was due within the last 24 hours and was not made, and it is made for the latest of them. Older ones
//! are dropped.
//!
//! **Daylight saving.** The rules are those of the `croner` crate, pinned by the tests of `cron`: a fixed time inside
//! the hour that is skipped runs once at its end where it names one minute, and not at all where it names several; a
//! fixed time inside the hour that comes twice runs the first time only; a job with `*` in its minute or hour runs in
//! both. This is not what Vixie's cron does in every case.
//!
//! Time is an argument everywhere; nothing here waits, stores or sends. Next: `scheduler` makes the runs.

mod body;
mod cron;
mod due;
mod identity;

pub use body::{CommandBodyError, check_body};
pub use cron::{CRON_CHARS_MAX, CronError, CronSchedule};
pub use due::{MISSED_MAX, due, is_news};
pub use identity::operation_for;
