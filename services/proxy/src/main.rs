//! The proxy as a process: the HTTP frontend stands behind the port.

use std::sync::Arc;

use contract::Service;
use proxy::adapters::frontend::HttpFrontend;
use proxy::config::{Config, DEFAULTS};

fn main() -> anyhow::Result<()> {
    chassis::run::<Config, _, _>(Service::Proxy, env!("CARGO_PKG_VERSION"), DEFAULTS, async |chassis| {
        let config = chassis.settings.service;
        let reach = config.reach(chassis.settings.host);
        let frontend = HttpFrontend::start(config.http_listen, config.frontend()).await?;
        Ok(proxy::open(chassis.bus, Arc::new(frontend), reach))
    })
}
