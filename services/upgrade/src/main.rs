//! The upgrade service as a process.

use contract::Service;
use upgrade::config::Config;

fn main() -> anyhow::Result<()> {
    chassis::run::<Config, _, _>(Service::Upgrade, env!("CARGO_PKG_VERSION"), "", async |chassis| {
        Ok(upgrade::open(chassis.bus, chassis.settings))
    })
}
