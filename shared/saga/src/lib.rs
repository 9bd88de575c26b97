//! Work that ends done or as before, whatever it dies at.
//!
//! ```text
//!   order of steps + journal --next_move--> do / do again / undo / end       (a pure function)
//!                                |
//!                              drive: record "started" -> act -> record "done" -> ...
//!                                             |                     |
//!                                      a crash here           or here: the step is done again,
//!                                                             so every step must bear being repeated
//! ```
//!
//! A saga file has four parts: what it needs, its steps (`act` and `undo` side by side), their order, the step
//! functions. The journal is kept by a `Ledger` that fences: of two drivers only one can record. `rehearsal` puts a
//! saga through repetition, failure and crash at every step. This crate performs no IO and has no clock: pauses and
//! limits go through the ledger. It does not know what an operation is; `operation` joins it to the bus.

mod drive;
mod journal;
pub mod rehearsal;
mod step;

pub use drive::{Ledger, Lost, drive};
pub use journal::{Ending, Entry, Journal, Move, next_move};
pub use step::{Step, StepFuture, Trail, Trouble, output};
