//! The proxy forwards HTTP requests to virtual machines, by the domain they name.
//!
//! ```text
//!   clients --HTTP--> frontend --> VMs              an immutable route table, swapped whole
//!                       ^
//!                       | swap
//!   provisioner --> RouteKeeper <--> table `routes`: the VMs known last
//!     list_vms, vm_changed   ^
//!                            | list_routes
//! ```
//!
//! Promises: a VM gets requests as soon as it is ready, without a restart and without touching connections of other
//! routes; while it is down, clients get 503 with Retry-After; without the provisioner, requests go where they went
//! before, also after a restart of the proxy.
//!
//! It does not know libvirt or disks, and it never decides that a VM is gone: the provisioner does.
//! Next: [`adapters::frontend`] for the data plane, [`actors`] for the keeper of the route table, `proxy-domain` for
//! all decisions.

pub mod actors;
pub mod adapters;
pub mod config;
mod handlers;
mod metrics;
pub mod ports;
mod refresh;
mod wiring;

use std::sync::Arc;
use std::time::Duration;

use bus::Bus;
use chassis::{Waker, Workers};
use proxy_domain::Reach;

use crate::actors::RouteKeeper;
use crate::handlers::Handlers;
use crate::ports::Frontend;
use crate::refresh::RouteRefresher;

/// How long exchanges and tunnels may go on when the service ends.
const DRAIN_MAX: Duration = Duration::from_secs(10);

/// Starts the actor and the worker that keep the route table. Call it inside an actix system.
pub fn open(bus: Bus, frontend: Arc<dyn Frontend>, reach: Reach) -> chassis::Service {
    let refresh = Waker::default();
    let keeper = RouteKeeper::start(bus.clone(), Arc::clone(&frontend), reach, refresh.clone());
    let mut workers = Workers::default();
    workers.start_with(RouteRefresher::new(bus, keeper.clone()), refresh);
    chassis::Service::new(wiring::wiring(), Handlers { route_keeper: keeper })
        .with_workers(workers)
        .ending_with(frontend.stop(DRAIN_MAX))
}
