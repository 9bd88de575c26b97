//! The HTTP frontend: from a client's bytes to an upstream's response and back.
//!
//! ```text
//!   client ──TCP──> listener ──> connection ──> client_socket ──> hyper ──> exchange ──┬──> pool ──> upstream
//!                   (limits)     (h1 or h2)     (strict              │ ^       │       │   (keep-alive)
//!                                                framing,            │ │       │       │
//!                                                timeouts)           v │       │       └──> tunnel (after a 101)
//!                                                               error page <───┘
//!                                                               (404, 502, 503, 504, with the trace id)
//! ```
//!
//! It promises that
//! - what two parsers could read in two ways reaches no upstream;
//! - bodies stream both ways; memory is bounded however large they are;
//! - swapping the route table ([`Frontend::swap`]) never disturbs a connection, a stream or a tunnel in progress; a
//!   tunnel ends only when its own route is removed, and then after the drain time;
//! - every wait has a timeout ([`Settings`]), every error page carries a request id that is the trace id;
//! - [`Frontend::stop`] lets exchanges and tunnels finish for the given time, and reports how many it aborted.
//!
//! An upstream connection has no task of its own: the request that uses it polls it, and the pool does not poll it
//! between requests. So an exchange is one task from end to end, and dropping it drops all that it uses.
//!
//! It does not know the bus, libvirt, TLS, or why a VM is down: it is given a route table. Its decisions are in
//! `proxy-domain`. To follow one request, begin at `exchange.rs`.

mod access_log;
mod client_socket;
mod connection;
mod connection_limit;
mod connection_state;
mod error_page;
mod exchange;
mod listener;
mod pool;
mod request_body;
mod request_head;
mod response_body;
mod response_deadlines;
mod settings;
mod shared;
mod trace;
mod tunnel;
mod tunnels;
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use proxy_domain::{RouteTable, RouteTableDiff};
use thiserror::Error;
use tokio::time::timeout;

use crate::ports::Frontend;
pub use settings::{Limits, Settings, Timeouts};
use shared::FrontendShared;

/// The frontend could not start.
#[derive(Debug, Error)]
#[error("listening for HTTP on {address}")]
pub struct ListenError {
    /// The address that was asked for.
    pub address: SocketAddr,
    /// Why the system refused it.
    #[source]
    pub source: io::Error,
}

/// What [`HttpFrontend::drain`] found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopReport {
    /// Connections and tunnels that were open when the stop began.
    pub open: usize,
    /// How many of them were still open at the timeout, and were aborted.
    pub aborted: usize,
}

/// What is open now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionCounts {
    /// Client connections, those that became tunnels included.
    pub clients: usize,
    /// Tunnels.
    pub tunnels: usize,
    /// Idle upstream connections, kept for the next request.
    pub idle_upstreams: usize,
}

/// A running HTTP frontend. Dropping it stops accepting and aborts what is open.
#[derive(Debug)]
pub struct HttpFrontend {
    shared: Arc<FrontendShared>,
    address: SocketAddr,
}

/// Aborted tasks only have to be polled once more to end.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

impl HttpFrontend {
    /// Listens on `address` (port 0: the system chooses) with an empty route table. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// The address is in use, or does not belong to this host, or the port needs a privilege.
    pub async fn start(address: SocketAddr, settings: Settings) -> Result<Self, ListenError> {
        let failed = |source| ListenError { address, source };
        let listener = listener::bind(address).map_err(failed)?;
        let bound = listener.local_addr().map_err(failed)?;
        let shared = Arc::new(FrontendShared::new(settings));
        shared.tasks.spawn(listener::accept(listener, shared.clone()));
        tracing::info!(address = %bound, "listening for HTTP");
        Ok(Self { shared, address: bound })
    }

    /// What is open now.
    pub fn counts(&self) -> ConnectionCounts {
        ConnectionCounts {
            clients: self.shared.limiter.open(),
            tunnels: self.shared.tunnels.open(),
            idle_upstreams: self.shared.pool.idle(),
        }
    }

    /// As [`Frontend::stop`], with a report.
    pub async fn drain(&self, drain_max: Duration) -> StopReport {
        let open = self.shared.limiter.open();
        self.shared.stop.cancel();
        self.shared.tasks.close();
        let aborted = match timeout(drain_max, self.shared.tasks.wait()).await {
            Ok(()) => 0,
            Err(_) => {
                let aborted = self.shared.limiter.open();
                self.shared.abort.cancel();
                if timeout(ABORT_TIMEOUT, self.shared.tasks.wait()).await.is_err() {
                    tracing::warn!(left = self.shared.tasks.len(), "connections did not end when aborted");
                }
                aborted
            }
        };
        tracing::info!(open, aborted, "HTTP frontend stopped");
        StopReport { open, aborted }
    }
}

impl Frontend for HttpFrontend {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn table(&self) -> Arc<RouteTable> {
        self.shared.table.load_full()
    }

    fn swap(&self, table: RouteTable) -> RouteTableDiff {
        let table = Arc::new(table);
        let before = self.shared.table.swap(table.clone());
        let diff = RouteTableDiff::between(&before, &table);
        if !diff.is_empty() {
            tracing::info!(routes = table.len(), changes = %diff, "routes changed");
        }
        if diff.revokes_a_domain() {
            self.shared.tunnels.drain_orphans();
        }
        diff
    }

    fn stop(self: Arc<Self>, drain_max: Duration) -> BoxFuture<'static, ()> {
        async move { self.drain(drain_max).map(|_| ()).await }.boxed()
    }
}

impl Drop for HttpFrontend {
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.abort.cancel();
    }
}
