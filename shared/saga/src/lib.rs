//! Work that ends done or as before, at whatever point the process dies.
//!
//! ```text
//!   order of steps + journal --next_action--> do / do again / undo / end     (a pure function)
//!                                |
//!                              drive: record "started" -> act -> record "done" -> ...
//!                                             |                     |
//!                                      a crash here           or here: the step is done again,
//!                                                             so every step is idempotent
//! ```
//!
//! A saga file has three parts: what it needs, its steps in order (`act` and `undo` side by side), the step functions:
//!
//! ```text
//!   Step::new("lock", QUICK, lock).undone_by(unlock)
//!   async fn lock(context: &Context, outputs: &Outputs) -> Result<VmRecord, StepError>
//! ```
//!
//! The journal is kept by a `Runtime` that fences: of two drivers only one can record. `harness` runs a saga through
//! repetition, failure and crash at every step. This crate performs no IO and has no clock: pauses and timeouts go
//! through the runtime. It does not know what an operation is; `operation` joins it to the bus.

#![warn(clippy::missing_errors_doc)]

mod drive;
pub mod harness;
mod journal;

mod step;

pub use drive::{FencedError, Runtime, drive};
pub use journal::{Action, Journal, JournalEntry, SagaOutcome, next_action};
pub use step::{Outputs, Step, StepError, StepFn, StepFuture};
