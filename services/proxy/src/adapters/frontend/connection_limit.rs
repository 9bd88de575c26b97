//! How many client connections may be open, in total and per client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proxy_domain::client_network::ClientNetwork;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::settings::Limits;
use crate::metrics::Metrics;

/// Issues a permit for each client connection.
#[derive(Debug)]
pub(super) struct ConnectionLimiter {
    slots: Arc<Semaphore>,
    per_client_max: usize,
    open: Arc<OpenConnections>,
}

#[derive(Debug)]
struct OpenConnections {
    counts: Mutex<Counts>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_client: HashMap<ClientNetwork, usize>,
}

/// Permits one connection; returned when dropped.
#[derive(Debug)]
pub(super) struct ConnectionPermit {
    _slot: OwnedSemaphorePermit,
    client: Option<ClientNetwork>,
    open: Arc<OpenConnections>,
}

impl ConnectionLimiter {
    pub(super) fn new(limits: &Limits, metrics: Metrics) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(limits.connections_max)),
            per_client_max: limits.connections_per_client_max,
            open: Arc::new(OpenConnections { counts: Mutex::default(), metrics }),
        }
    }

    /// Waits until one more connection may be accepted.
    pub(super) async fn slot(&self) -> OwnedSemaphorePermit {
        self.slots.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Permits a connection from this address, or `None` if its client has as many as it may.
    pub(super) fn permit(
        &self,
        slot: OwnedSemaphorePermit,
        address: IpAddr,
        exempt: bool,
    ) -> Option<ConnectionPermit> {
        let client = (!exempt).then(|| ClientNetwork::from(address));
        let mut counts = self.open.counts();
        if let Some(client) = client {
            let count = counts.by_client.entry(client).or_default();
            if *count >= self.per_client_max {
                return None;
            }
            *count += 1;
        }
        counts.total += 1;
        self.open.metrics.client_connections.add(1, &[]);
        Some(ConnectionPermit { _slot: slot, client, open: self.open.clone() })
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.open.counts().total
    }
}

impl OpenConnections {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut counts = self.open.counts();
        counts.total -= 1;
        if let Some(client) = self.client
            && let Some(count) = counts.by_client.get_mut(&client)
        {
            *count -= 1;
            if *count == 0 {
                counts.by_client.remove(&client);
            }
        }
        self.open.metrics.client_connections.add(-1, &[]);
    }
}
