//! What every service's `main` shares, so that there is one start-up and one orderly end.
//!
//! ```text
//!   no core dumps -> settings (file, environment) -> guard: files that others can write are refused
//!        -> telemetry -> actix system on tokio -> bus (our nkey) -> the service's own `run`
//!        -> ready: the desk is open, discovery finds us
//!   SIGTERM / SIGINT -> desk closed (answers under way are given) -> operations leave -> actors -> telemetry flushed
//! ```
//!
//! A panic anywhere is a bug and ends the process at once; whoever supervises us starts it again and sagas resume
//! from their journals. The chassis knows no service: `run` gets a closure that builds one.

mod files;
mod memory;
mod settings;
mod start;

pub use files::{FileError, refuse_if_others_can_write, sha256_of};
pub use memory::{CoreDumpError, leave_no_core_dump};
pub use settings::{NatsSettings, Settings, SettingsError, load};
pub use start::{BoxFuture, CHECK_SETTINGS, Chassis, Endpoints, PartCheck, Service, end_on_panic, run};
