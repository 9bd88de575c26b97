//! For tests only: real servers in private folders, and waiting for conditions instead of times.
//!
//! ```text
//!   NatsCluster  three of them that elect a leader; any can be killed and revived
//!   NatsServer   a nats-server on a port of the system's choice, its data in a folder that goes with it
//!   eventually   asks again until it holds, or says what it was still waiting for
//! ```

#![warn(clippy::missing_errors_doc)]

mod eventually;
mod nats_cluster;
mod nats_server;

pub use eventually::{WAIT_MAX, eventually, eventually_some};
pub use nats_cluster::NatsCluster;
pub use nats_server::NatsServer;
