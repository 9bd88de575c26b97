//! The worker that reads the list of all VMs: events can be lost, and the proxy may have been down.

use std::time::Duration;

use actix::Addr;
use actor::ask;
use bus::{Bus, CallError, TransportError};
use chassis::Worker;
use contract::message::with_causes;
use contract::provisioner::{ListVms, Vm};
use proxy_domain::UpstreamVm;
use tokio::time::Instant;

use crate::actors::{GetVmEventCount, ReplaceVms, RouteKeeper};

/// How often the whole list is read.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);
/// The provisioner lists VMs from memory.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// The keeper replies from memory.
const KEEPER_TIMEOUT: Duration = Duration::from_secs(5);
/// A provisioner that does not answer yet is starting, as we are, for so long; health says that the first round has not
/// ended, and nothing is wrong.
const START_MAX: Duration = Duration::from_secs(10);
const START_PAUSE: Duration = Duration::from_millis(250);
/// Lists that events overtook are read again, this often in one round.
const ATTEMPTS: usize = 3;
/// All attempts, each with its waits.
const ROUND_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct RouteRefresher {
    bus: Bus,
    route_keeper: Addr<RouteKeeper>,
    /// Whether the provisioner may still be starting.
    starting: bool,
}

impl RouteRefresher {
    pub(crate) fn new(bus: Bus, route_keeper: Addr<RouteKeeper>) -> RouteRefresher {
        RouteRefresher { bus, route_keeper, starting: true }
    }

    async fn list(&mut self) -> Result<Vec<Vm>, String> {
        let until = Instant::now() + START_MAX;
        loop {
            match self.bus.call(&ListVms {}, LIST_TIMEOUT).await {
                Err(CallError::Transport { source: TransportError::NoResponder { .. }, .. })
                    if self.starting && Instant::now() < until =>
                {
                    tokio::time::sleep(START_PAUSE).await;
                }
                listed => {
                    self.starting = false;
                    return listed.map_err(|error| with_causes(&error));
                }
            }
        }
    }
}

impl Worker for RouteRefresher {
    fn name(&self) -> &'static str {
        "refresh_routes"
    }

    fn interval(&self) -> Duration {
        REFRESH_INTERVAL
    }

    fn timeout(&self) -> Duration {
        ROUND_TIMEOUT
    }

    async fn round(&mut self) -> Result<(), String> {
        for _ in 0..ATTEMPTS {
            let changes_before =
                ask(&self.route_keeper, GetVmEventCount, KEEPER_TIMEOUT).await.map_err(|e| e.to_string())?;
            let listed = self.list().await?.into_iter().map(UpstreamVm::from).collect();
            let replace = ReplaceVms { vms: listed, change_count_before: changes_before };
            if ask(&self.route_keeper, replace, KEEPER_TIMEOUT).await.map_err(|e| e.to_string())? {
                return Ok(());
            }
        }
        // The events that overtook the lists were applied.
        Ok(())
    }
}
