//! The ports of the proxy: what its actors need of the network.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use proxy_domain::{RouteTable, RouteTableDiff};

/// The HTTP frontend: accepts client connections and forwards their requests by the route table in force.
pub trait Frontend: Send + Sync + 'static {
    /// The address it listens on.
    fn address(&self) -> SocketAddr;

    /// The table in force; build its successor with [`RouteTable::build`].
    fn table(&self) -> Arc<RouteTable>;

    /// Puts a new table in force for every request that begins from now on, and returns what changed.
    fn swap(&self, table: RouteTable) -> RouteTableDiff;

    /// Stops accepting, lets exchanges and tunnels finish within `drain_max`, then aborts the rest.
    fn stop(self: Arc<Self>, drain_max: Duration) -> BoxFuture<'static, ()>;
}
