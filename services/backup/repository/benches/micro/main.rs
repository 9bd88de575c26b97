//! What the parts of the engine take, on one core.
//!
//! ```text
//!   cargo bench -p backup-repository --bench micro                all of it
//!   cargo bench -p backup-repository --bench micro -- scan        known data, zeros, holes
//!   cargo bench -p backup-repository --bench micro -- retention   plans for 100,000 snapshots
//!   cargo bench -p backup-repository --bench micro -- changes     what is read where a map says what changed
//!   cargo bench -p backup-repository --bench micro -- cuts        the five guests, cut anywhere and on a grid
//! ```
//!
//! Speeds are bytes by processor seconds, user and system, so that other work on the machine disturbs little.
#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod changes;
mod cuts;
#[path = "../disk/mod.rs"]
mod disk;
#[path = "../guests/mod.rs"]
mod guests;
mod retention;
mod scan;

use nix::sys::resource::{UsageWho, getrusage};

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let is_asked = |word: &str| asked.is_empty() || asked.iter().any(|asked| asked == word);
    if is_asked("scan") {
        tokio::runtime::Runtime::new().unwrap().block_on(scan::run());
    }
    if is_asked("retention") {
        retention::run();
    }
    if is_asked("changes") {
        tokio::runtime::Runtime::new().unwrap().block_on(changes::run());
    }
    if is_asked("cuts") {
        tokio::runtime::Runtime::new().unwrap().block_on(cuts::run());
    }
}

/// Processor seconds of this process so far.
fn cpu_seconds() -> f64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}
