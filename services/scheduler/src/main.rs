//! The scheduler as a process, with the system's clock.

use std::sync::Arc;

use contract::Service;
use scheduler::adapters::SystemClock;
use scheduler::config::Config;

fn main() -> anyhow::Result<()> {
    chassis::run::<Config, _, _>(Service::Scheduler, env!("CARGO_PKG_VERSION"), "", async |chassis| {
        Ok(scheduler::open(chassis.bus, Arc::new(SystemClock)))
    })
}
