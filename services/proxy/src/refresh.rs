//! The worker that reads the list of all VMs: events can be lost, and the proxy may have been down.

use std::time::Duration;

use actix::Addr;
use actor::ask;
use bus::Bus;
use chassis::Worker;
use contract::message::with_causes;
use contract::provisioner::ListVms;
use proxy_domain::UpstreamVm;

use crate::actors::{GetVmEventCount, ReplaceVms, RouteKeeper};

/// How often the whole list is read.
const REFRESH_INTERVAL: Duration = Duration::from_secs(10);
/// The provisioner lists VMs from memory.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// The keeper replies from memory.
const KEEPER_TIMEOUT: Duration = Duration::from_secs(5);
/// Lists that events overtook are read again, this often in one round.
const ATTEMPTS: usize = 3;
/// All attempts, each with its waits.
const ROUND_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) struct RouteRefresher {
    pub(crate) bus: Bus,
    pub(crate) route_keeper: Addr<RouteKeeper>,
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
            let listed =
                self.bus.call(&ListVms {}, LIST_TIMEOUT).await.map_err(|error| with_causes(&error))?;
            let listed = listed.into_iter().map(UpstreamVm::from).collect();
            let replace = ReplaceVms { vms: listed, change_count_before: changes_before };
            if ask(&self.route_keeper, replace, KEEPER_TIMEOUT).await.map_err(|e| e.to_string())? {
                return Ok(());
            }
        }
        // The events that overtook the lists were applied.
        Ok(())
    }
}
