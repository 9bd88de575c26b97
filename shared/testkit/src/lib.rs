//! For tests only: real servers in private folders, and waiting for conditions instead of times.
//!
//! ```text
//!   NatsCluster  three of them that elect a leader; any can be killed and revived
//!   NatsServer   a nats-server on a port of the system's choice, its data in a folder that goes with it
//!   golden_row   compares a row with the one that is committed
//!   eventually   asks again until it holds, or says what it was still waiting for
//! ```

#![warn(clippy::missing_errors_doc)]

mod eventually;
mod nats_cluster;
mod nats_server;

pub use eventually::{WAIT_MAX, eventually, eventually_some};
pub use nats_cluster::NatsCluster;
pub use nats_server::NatsServer;

/// Whether the samples of rows are kept. Until version 1 is released a change may write them over; from then on this is
/// `true`, and a type that changes gets a new version and a sample of its own.
const ROWS_FROZEN: bool = false;

/// Compares the bytes of a row with those that are committed, `{package}/rows/v1/{name}.msgpack`. `tests/generate` writes
/// them, and never over kept ones.
///
/// # Panics
/// When they differ, or there is no such file.
pub fn golden_row(package: &str, name: &str, row: &[u8]) {
    let folder = std::path::Path::new(package).join("rows/v1");
    let path = folder.join(format!("{name}.msgpack"));
    if std::env::var_os("LOAM_WRITE_SAMPLES").is_some() && !(ROWS_FROZEN && path.exists()) {
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(&path, row).expect("written");
    }
    let kept = std::fs::read(&path);
    let kept = kept.unwrap_or_else(|error| panic!("{}: {error}; run `tests/generate`", path.display()));
    assert!(kept == row, "{} differs from what is written today: {row:x?}", path.display());
}
