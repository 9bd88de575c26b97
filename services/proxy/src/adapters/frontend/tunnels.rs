//! The open tunnels and their routes; ends those whose route was removed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use proxy_domain::{Route, RouteTable};
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// The open tunnels of a frontend.
#[derive(Debug)]
pub(super) struct Tunnels {
    open: Mutex<OpenTunnels>,
    /// The table in force.
    table: Arc<ArcSwap<RouteTable>>,
    /// From the removal of a tunnel's route to the end of the tunnel.
    drain: Duration,
    /// End all tunnels now.
    abort: CancellationToken,
    /// Where drain timers run: the thread that swaps a table may have no runtime.
    runtime: Handle,
    metrics: Metrics,
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
pub(super) struct TunnelRegistration {
    id: u64,
    terminate: CancellationToken,
    tunnels: Arc<Tunnels>,
}

impl TunnelRegistration {
    /// Ends when the tunnel must.
    pub(super) async fn terminated(&self) {
        self.terminate.cancelled().await;
    }
}

impl Drop for TunnelRegistration {
    fn drop(&mut self) {
        self.tunnels.lock().by_id.remove(&self.id);
        self.tunnels.metrics.tunnels.add(-1, &[]);
    }
}

impl Tunnels {
    /// Needs a tokio runtime.
    pub(super) fn new(
        table: Arc<ArcSwap<RouteTable>>,
        drain: Duration,
        abort: CancellationToken,
        metrics: Metrics,
    ) -> Arc<Self> {
        let (open, runtime) = (Mutex::default(), Handle::current());
        Arc::new(Self { open, table, drain, abort, runtime, metrics })
    }

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.lock().by_id.len()
    }

    pub(super) fn register(self: &Arc<Self>, route: Arc<Route>) -> TunnelRegistration {
        let terminate = self.abort.child_token();
        let mut open = self.lock();
        let id = open.next_id;
        open.next_id += 1;
        open.by_id
            .insert(id, OpenTunnel { route: route.clone(), terminate: terminate.clone(), orphan: false });
        drop(open);
        self.metrics.tunnels.add(1, &[]);
        // A swap before this check may have missed the tunnel; one after it finds the tunnel.
        if !is_routed(&self.table.load(), &route) {
            self.drain_orphans();
        }
        TunnelRegistration { id, terminate, tunnels: self.clone() }
    }

    /// Gives tunnels whose VM lost their domain the drain time, then ends those whose VM did not get it back.
    pub(super) fn drain_orphans(self: &Arc<Self>) {
        let table = self.table.load();
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
        let tunnels = self.clone();
        self.runtime.spawn(async move {
            tokio::select! {
                () = sleep(tunnels.drain) => tunnels.terminate(&orphans),
                () = tunnels.abort.cancelled() => {}
            }
        });
    }

    fn terminate(&self, orphans: &[u64]) {
        let mut open = self.lock();
        // Read under the lock: after a later swap, `drain_orphans` finds the tunnels as this leaves them.
        let table = self.table.load();
        for id in orphans {
            if let Some(tunnel) = open.by_id.get_mut(id) {
                tunnel.orphan = false;
                if !is_routed(&table, &tunnel.route) {
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
