//! The open tunnels and their routes; ends those whose route was removed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proxy_domain::{Route, RouteTable};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;

/// The open tunnels of a frontend.
#[derive(Debug, Default)]
pub(super) struct Tunnels {
    open: Mutex<OpenTunnels>,
}

#[derive(Debug, Default)]
struct OpenTunnels {
    next_id: u64,
    by_id: HashMap<u64, OpenTunnel>,
}

#[derive(Debug)]
struct OpenTunnel {
    route: Arc<Route>,
    terminate: CancellationToken,
    /// Its route was removed, and its drain time is running.
    orphan: bool,
}

/// Registers one tunnel; removed when dropped.
pub(super) struct TunnelEntry<'a> {
    id: u64,
    terminate: CancellationToken,
    shared: &'a Shared,
}

impl TunnelEntry<'_> {
    /// Ends when the tunnel must.
    pub(super) async fn terminated(&self) {
        self.terminate.cancelled().await;
    }
}

impl Drop for TunnelEntry<'_> {
    fn drop(&mut self) {
        self.shared.tunnels.lock().by_id.remove(&self.id);
        self.shared.metrics.tunnels.add(-1, &[]);
    }
}

impl Tunnels {
    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.lock().by_id.len()
    }

    pub(super) fn register<'a>(&self, route: Arc<Route>, shared: &'a Arc<Shared>) -> TunnelEntry<'a> {
        let terminate = shared.abort.child_token();
        let removed_meanwhile = !is_routed(&shared.table.load(), &route);
        let mut open = self.lock();
        let id = open.next_id;
        open.next_id += 1;
        open.by_id.insert(id, OpenTunnel { route, terminate: terminate.clone(), orphan: false });
        drop(open);
        shared.metrics.tunnels.add(1, &[]);
        if removed_meanwhile {
            self.drain_orphans(shared);
        }
        TunnelEntry { id, terminate, shared }
    }

    /// Gives tunnels whose VM lost their domain the drain time, then ends those whose VM did not get it back.
    pub(super) fn drain_orphans(&self, shared: &Arc<Shared>) {
        let table = shared.table.load();
        let mut orphans = Vec::new();
        for (id, tunnel) in &mut self.lock().by_id {
            if !tunnel.orphan && !is_routed(&table, &tunnel.route) {
                tunnel.orphan = true;
                orphans.push(*id);
            }
        }
        if orphans.is_empty() {
            return;
        }
        tracing::info!(tunnels = orphans.len(), "routes of open tunnels were removed; the tunnels will end");
        let (runtime, shared) = (shared.runtime.clone(), shared.clone());
        runtime.spawn(async move {
            tokio::select! {
                () = sleep(shared.settings.timeouts.drain) => {
                    shared.tunnels.terminate(&orphans, &shared.table.load());
                }
                () = shared.abort.cancelled() => {}
            }
        });
    }

    fn terminate(&self, orphans: &[u64], table: &RouteTable) {
        let mut open = self.lock();
        for id in orphans {
            if let Some(tunnel) = open.by_id.get_mut(id) {
                tunnel.orphan = false;
                if !is_routed(table, &tunnel.route) {
                    tunnel.terminate.cancel();
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, OpenTunnels> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the domain still belongs to the same VM, whatever its address is now.
fn is_routed(table: &RouteTable, route: &Route) -> bool {
    table.get(route.domain.as_str()).is_some_and(|now| now.vm == route.vm)
}
