//! Durable work, joined to the bus: a saga whose journal is a row of the table `operations`.
//!
//! ```text
//!   command --begin--> row created (id, command, trace) --> answered at once with the id
//!                           |
//!                        driver: drive the saga; every record is a compare-and-set on the row's revision,
//!                           |    so that of two drivers one is fenced and stops before its next action
//!                           +--> OperationChanged events: progress and outcome
//!   process starts --resume--> every row that is not final is driven on, in its old trace
//! ```
//!
//! Promises: the same id and command begin one operation, whatever is repeated; an operation outlives its process; it
//! can be listed, watched and cancelled; while the bus is away it is suspended and nothing more; nothing that may be
//! secret is in a row, an event or a log in clear. It does not know what any saga does.
//!
//! `begin` begins operations, `sagas` are what a service can do, `engine` drives, resumes and stops; `index` says which there
//! are; `server` answers the requests about operations; `runtime` keeps the journal, of which `confidential` encrypts what
//! may be secret; `context` is what a step sees; `wait` follows an operation of another service; `error` turns the errors
//! of calls into those of steps.

#![warn(clippy::missing_errors_doc)]

mod begin;
mod confidential;
mod context;
mod engine;
mod error;
mod index;
mod metrics;
mod record;
mod runtime;
mod sagas;
mod server;
mod wait;

pub use begin::{BeginError, PendingCommand};
pub use context::{Context, ProgressMeter, ScriptOutputs};
pub use engine::{Engine, ResumeError, UnfinishedOperation, new_id};
pub use error::{call_error, declined_error, failure_error};
pub use sagas::{Saga, Sagas};
pub use wait::wait_for_operation;
