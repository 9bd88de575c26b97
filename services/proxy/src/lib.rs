//! The proxy leads HTTP traffic to virtual machines.
//!
//! ```text
//!   clients --HTTP--> front --> machines            an immutable table, swapped whole
//!                       ^
//!                       | swap
//!   provisioner --> RouteKeeper <--> routes (table: what was known last)
//!     list_vms, vm_changed   ^
//!                            | list_routes (desk)
//! ```
//!
//! Promises: a machine is reached as soon as it is ready, without a restart and without touching a connection that
//! leads elsewhere; while it does not answer, clients get 503 with Retry-After; without the provisioner, traffic goes
//! where it went before, also after our own restart.
//!
//! It does not know libvirt or disks, and it never decides that a machine is gone: it is told.
//! Next: [`front`] for the data plane, [`actors`] for the table's keeper, `proxy-domain` for what is decided.

pub mod actors;
pub mod config;
pub mod front;
mod wiring;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bus::Bus;

use crate::actors::RouteKeeper;
use crate::config::Config;
use crate::front::Front;

/// What is under way when we end may take this long.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Opens the front and its keeper. Call it inside an actix system.
pub async fn open(bus: Bus, config: Config) -> anyhow::Result<chassis::Service> {
    let front = Front::start(config.http_listen, config.front()).await.context("opening the HTTP front")?;
    let front = Arc::new(front);
    let keeper = RouteKeeper::start(bus, Arc::clone(&front));
    Ok(chassis::Service {
        endpoints: Some(wiring::endpoints(keeper.clone())),
        parts: vec![("routes", wiring::routes_check(keeper))],
        end: Some(Box::pin(async move {
            front.stop(DRAIN_MAX).await;
        })),
        ..chassis::Service::default()
    })
}
