//! The proxy as a process.

use contract::Service;
use proxy::config::{Config, DEFAULTS};

fn main() -> anyhow::Result<()> {
    chassis::run::<Config, _, _>(Service::Proxy, env!("CARGO_PKG_VERSION"), DEFAULTS, async |chassis| {
        proxy::open(chassis.bus, chassis.settings.own).await
    })
}
