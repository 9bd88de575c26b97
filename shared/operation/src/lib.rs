//! Work that lasts, joined to the bus: a saga whose journal is a row of the table `operations`.
//!
//! ```text
//!   command --begin--> row created (id, input, trace)  --> answered at once with the id
//!                           |
//!                        runner: drive the saga; every record is a compare-and-set on the row's revision,
//!                           |    so that of two runners one loses and stops before its next deed
//!                           +--> OperationChanged events: progress and outcome
//!   process starts --resume--> every row that is not final is driven on, in its old trace
//! ```
//!
//! Promises: the same id and input begin one operation, whatever is repeated; an operation outlives its process; it
//! can be listed, watched and cancelled; the bus going away suspends it and nothing more. It does not know what any
//! saga does.

mod ledger;
mod metrics;
mod operations;
mod progress;
mod record;

pub use operations::{BeginError, Builder, Operations, OperationsError, Work, fresh_id, wait_for_operation};
pub use progress::{Context, Meter};
