//! Which tunnels are open, on which routes; ends those whose route was taken away.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proxy_domain::{Route, RouteTable};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::shared::Shared;

/// The open tunnels of a front.
#[derive(Debug, Default)]
pub(super) struct Tunnels {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    next: u64,
    open: HashMap<u64, Tunnel>,
}

#[derive(Debug)]
struct Tunnel {
    route: Arc<Route>,
    cut: CancellationToken,
    /// Its route was taken away, and its time is running.
    orphan: bool,
}

/// A tunnel's entry; taken out when dropped.
pub(super) struct Entry<'a> {
    id: u64,
    cut: CancellationToken,
    shared: &'a Shared,
}

impl Entry<'_> {
    /// Ends when the tunnel must.
    pub(super) async fn cut(&self) {
        self.cut.cancelled().await;
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.shared.tunnels.book().open.remove(&self.id);
        self.shared.metrics.open_tunnels.add(-1, &[]);
    }
}

impl Tunnels {
    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.book().open.len()
    }

    pub(super) fn enter<'a>(&self, route: Arc<Route>, shared: &'a Arc<Shared>) -> Entry<'a> {
        let cut = shared.cut.child_token();
        let taken_away_meanwhile = !is_routed(&shared.table.load(), &route);
        let mut book = self.book();
        let id = book.next;
        book.next += 1;
        book.open.insert(id, Tunnel { route, cut: cut.clone(), orphan: false });
        drop(book);
        shared.metrics.open_tunnels.add(1, &[]);
        if taken_away_meanwhile {
            self.end_orphans(shared);
        }
        Entry { id, cut, shared }
    }

    /// Gives tunnels whose machine lost their domain the drain time, and then ends those that it did not get back.
    pub(super) fn end_orphans(&self, shared: &Arc<Shared>) {
        let table = shared.table.load();
        let mut orphans = Vec::new();
        for (id, tunnel) in &mut self.book().open {
            if !tunnel.orphan && !is_routed(&table, &tunnel.route) {
                tunnel.orphan = true;
                orphans.push(*id);
            }
        }
        if orphans.is_empty() {
            return;
        }
        tracing::info!(tunnels = orphans.len(), "tunnels lost their route and will end");
        let (runtime, shared) = (shared.runtime.clone(), shared.clone());
        runtime.spawn(async move {
            tokio::select! {
                () = sleep(shared.settings.timeouts.drain) => shared.tunnels.cut(&orphans, &shared.table.load()),
                () = shared.cut.cancelled() => {}
            }
        });
    }

    fn cut(&self, orphans: &[u64], table: &RouteTable) {
        let mut book = self.book();
        for id in orphans {
            if let Some(tunnel) = book.open.get_mut(id) {
                tunnel.orphan = false;
                if !is_routed(table, &tunnel.route) {
                    tunnel.cut.cancel();
                }
            }
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the domain still belongs to the same machine, wherever that is now.
fn is_routed(table: &RouteTable, route: &Route) -> bool {
    table.get(route.host.as_str()).is_some_and(|now| now.owner == route.owner)
}
