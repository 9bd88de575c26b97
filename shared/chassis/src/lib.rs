//! What every service's `main` shares, so that there is one start-up and one orderly end.
//!
//! ```text
//!   no core dumps, all descriptors -> settings (file, environment; files that others can write are refused)
//!        -> telemetry -> actix system on tokio -> bus (our nkey) -> the service's own `open`
//!        -> ready: its endpoints are open, discovery finds it, operations are resumed
//!   SIGTERM / SIGINT -> endpoints closed (calls under way are answered) -> operations, workers -> actors -> telemetry
//! ```
//!
//! A service gives back a `Service`: its `Wiring` (which handler answers which request, which saga carries out which
//! durable command), its `Workers` (background work in rounds) and the parts that its health depends on.
//!
//! Health is asked over the bus, and on the process' own host over a socket (`local_health`); it is sent to systemd (`systemd`). A service that may open what
//! another may only read passes open descriptors to it (`passing`).
//!
//! A panic anywhere is a bug and ends the process at once; the supervisor starts it again and sagas resume from their
//! journals. The chassis knows no service: `run` gets a closure that opens one.

#![warn(clippy::missing_errors_doc)]

mod descriptors;
mod files;
mod health;
mod local_health;
mod memory;
mod operations;
mod passing;
mod settings;
mod signals;
mod start;
mod systemd;
mod tables;
mod wiring;
mod worker;

pub use files::{FileTrustError, refuse_if_others_can_write, refuse_if_others_have_access, sha256_of};
pub use health::PartCheck;
pub use memory::{CoreDumpError, leave_no_core_dump};
pub use passing::{DescriptorServer, PassingError, request_descriptor};
pub use settings::{NatsSettings, OperationsKept, Settings, SettingsError, load};
pub use start::{
    BoxFuture, CHECK_HEALTH, CHECK_SETTINGS, Service, ServiceContext, StartedService, end_on_panic, run,
};
pub use wiring::{NoSagas, OnHost, Wiring};
pub use worker::{Waker, Worker, Workers};
