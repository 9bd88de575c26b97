//! How many connections there may be, in all and of one client.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use proxy_domain::origin::Origin;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::metrics::Metrics;
use super::settings::Limits;

/// Gives out places.
#[derive(Debug)]
pub(super) struct Admission {
    room: Arc<Semaphore>,
    per_origin_max: usize,
    taken: Arc<Taken>,
}

#[derive(Debug)]
struct Taken {
    book: Mutex<Book>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Book {
    open: usize,
    by_origin: HashMap<Origin, usize>,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _room: OwnedSemaphorePermit,
    origin: Option<Origin>,
    taken: Arc<Taken>,
}

impl Admission {
    pub(super) fn new(limits: &Limits, metrics: Metrics) -> Self {
        Self {
            room: Arc::new(Semaphore::new(limits.connections_max)),
            per_origin_max: limits.connections_per_origin_max,
            taken: Arc::new(Taken { book: Mutex::default(), metrics }),
        }
    }

    /// Waits until there is room for one more connection.
    pub(super) async fn room(&self) -> OwnedSemaphorePermit {
        self.room.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Gives a place to a connection from this address, or none if its client has as many as it may.
    pub(super) fn admit(&self, room: OwnedSemaphorePermit, address: IpAddr, exempt: bool) -> Option<Place> {
        let origin = (!exempt).then(|| Origin::from(address));
        let mut book = self.taken.book.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(origin) = origin {
            let count = book.by_origin.entry(origin).or_default();
            if *count >= self.per_origin_max {
                return None;
            }
            *count += 1;
        }
        book.open += 1;
        self.taken.metrics.open_connections.add(1, &[]);
        Some(Place { _room: room, origin, taken: self.taken.clone() })
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.taken.book.lock().unwrap_or_else(PoisonError::into_inner).open
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut book = self.taken.book.lock().unwrap_or_else(PoisonError::into_inner);
        book.open -= 1;
        if let Some(origin) = self.origin
            && let Some(count) = book.by_origin.get_mut(&origin)
        {
            *count -= 1;
            if *count == 0 {
                book.by_origin.remove(&origin);
            }
        }
        self.taken.metrics.open_connections.add(-1, &[]);
    }
}
