//! The HTTP data plane: from a client's bytes to a machine's answer and back.
//!
//! ```text
//!   client ──TCP──> listener ──> connection ──> guard ──> hyper ──> exchange ──┬──> pool ──> machine
//!                   (caps)       (h1 or h2)     (strict              │ ^       │   (keep-alive,
//!                                                framing,            │ │       │    carried by the request)
//!                                                slow clients)       v │       └──> tunnel (after a 101)
//!                                                              answer page
//!                                                              (404, 502, 503, 504, with the trace id)
//! ```
//!
//! It promises that
//! - what two parsers could read in two ways reaches no machine;
//! - bodies stream both ways; memory is bounded however large they are;
//! - swapping the route table ([`Front::swap`]) never disturbs a connection, a stream or a tunnel that is under way; a
//!   tunnel ends only when its own route is taken away, and then after a pause;
//! - every wait has an end ([`Settings`]), every error answer carries a request id that is the trace id;
//! - [`Front::stop`] lets what is under way finish, for so long, and says how much was cut.
//!
//! A connection to a machine has no task of its own: the request that uses it drives it, and the pool keeps it still
//! between requests. So a request is one task from end to end, and whoever gives up takes everything down with him.
//!
//! It does not know the bus, libvirt, TLS, or why a machine is down: somebody gives it a table. What it decides, it
//! decides in `proxy-domain`. To follow one request, begin at `exchange.rs`.

mod access;
mod admission;
mod answer;
mod client_body;
mod connection;
mod exchange;
mod guard;
mod head;
mod line;
mod listener;
mod metrics;
mod pool;
mod settings;
mod shared;
mod stall;
mod trace;
mod tunnel;
mod tunnels;
mod upstream;
mod upstream_body;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proxy_domain::{RouteTable, TableDiff};
use thiserror::Error;
use tokio::time::timeout;

pub use settings::{Limits, Settings, Timeouts};
use shared::Shared;

/// Why the front could not begin.
#[derive(Debug, Error)]
pub enum StartError {
    /// The address is taken, or not ours.
    #[error("listening for HTTP on {address}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// How a front ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Connections and tunnels that were open when the end was asked for.
    pub open: usize,
    /// How many of them were still under way at the deadline, and were cut.
    pub cut: usize,
}

/// What is open now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// Client connections, those that became tunnels included.
    pub connections: usize,
    /// Tunnels.
    pub tunnels: usize,
    /// Unused connections to machines, kept for the next request.
    pub idle_upstreams: usize,
}

/// A running HTTP front. Dropping it without [`Front::stop`] stops accepting and cuts what is open.
#[derive(Debug)]
pub struct Front {
    shared: Arc<Shared>,
    address: SocketAddr,
}

/// After the cut, tasks only have to be polled once more to end.
const CUT_GRACE: Duration = Duration::from_secs(1);

impl Front {
    /// Listens on `address` (port 0: the system chooses) with an empty route table. Needs a tokio runtime.
    pub async fn start(address: SocketAddr, settings: Settings) -> Result<Self, StartError> {
        let listen = |source| StartError::Listen { address, source };
        let listener = listener::bind(address).map_err(listen)?;
        let bound = listener.local_addr().map_err(listen)?;
        let shared = Arc::new(Shared::new(settings));
        shared.tasks.spawn(listener::accept(listener, shared.clone()));
        tracing::info!(address = %bound, "listening for HTTP");
        Ok(Self { shared, address: bound })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The table in force; build its successor with [`RouteTable::build`].
    pub fn table(&self) -> Arc<RouteTable> {
        self.shared.table.load_full()
    }

    /// Puts a new table in force for every request that begins from now on, and returns what changed.
    pub fn swap(&self, table: RouteTable) -> TableDiff {
        let table = Arc::new(table);
        let before = self.shared.table.swap(table.clone());
        let diff = TableDiff::between(&before, &table);
        if !diff.is_empty() {
            tracing::info!(routes = table.len(), changes = %diff, "routes changed");
        }
        if diff.takes_away() {
            self.shared.tunnels.end_orphans(&self.shared);
        }
        diff
    }

    /// What is open now.
    pub fn open(&self) -> Open {
        Open {
            connections: self.shared.admission.open(),
            tunnels: self.shared.tunnels.open(),
            idle_upstreams: self.shared.pool.idle(),
        }
    }

    /// Stops accepting, lets requests and tunnels finish until `deadline` has passed, then cuts the rest.
    pub async fn stop(&self, deadline: Duration) -> Ended {
        let open = self.shared.admission.open();
        self.shared.stop.cancel();
        self.shared.tasks.close();
        let cut = match timeout(deadline, self.shared.tasks.wait()).await {
            Ok(()) => 0,
            Err(_) => {
                let cut = self.shared.admission.open();
                self.shared.cut.cancel();
                if timeout(CUT_GRACE, self.shared.tasks.wait()).await.is_err() {
                    tracing::warn!(
                        left = self.shared.tasks.len(),
                        "connections did not end when they were cut"
                    );
                }
                cut
            }
        };
        tracing::info!(open, cut, "HTTP front ended");
        Ended { open, cut }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.cut.cancel();
    }
}
