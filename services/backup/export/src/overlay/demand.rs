//! Whether guests wait for requests just now: the fill yields to them.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// Requests of guests that are under way.
#[derive(Debug)]
pub(super) struct GuestRequests {
    under_way: watch::Sender<usize>,
}

/// One of them, for as long as this lives.
#[derive(Debug)]
pub(super) struct GuestRequestGuard<'a>(&'a GuestRequests);

impl GuestRequests {
    pub(super) fn new() -> GuestRequests {
        GuestRequests { under_way: watch::Sender::new(0) }
    }

    pub(super) fn enter(&self) -> GuestRequestGuard<'_> {
        self.under_way.send_modify(|count| *count += 1);
        GuestRequestGuard(self)
    }

    /// Waits until no request is under way, at most `yield_timeout`: a guest that never pauses does not keep the fill
    /// from finishing.
    pub(super) async fn quiet(&self, yield_timeout: Duration) {
        let mut under_way = self.under_way.subscribe();
        // Either way it is time to go on.
        let _ = timeout(yield_timeout, under_way.wait_for(|count| *count == 0)).await;
    }
}

impl Drop for GuestRequestGuard<'_> {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count -= 1);
    }
}
