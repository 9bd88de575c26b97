//! Whether anybody asks just now: the fill gives way.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// Requests of guests that are under way.
#[derive(Debug)]
pub(super) struct Demand {
    under_way: watch::Sender<usize>,
}

/// One of them, as long as this lives.
#[derive(Debug)]
pub(super) struct Asked<'a>(&'a Demand);

impl Demand {
    pub(super) fn new() -> Demand {
        Demand { under_way: watch::Sender::new(0) }
    }

    pub(super) fn enter(&self) -> Asked<'_> {
        self.under_way.send_modify(|count| *count += 1);
        Asked(self)
    }

    /// Waits until nobody asks, or the patience is at an end: a guest that never rests does not keep the fill from
    /// ever getting done.
    pub(super) async fn quiet(&self, patience: Duration) {
        let mut under_way = self.under_way.subscribe();
        // Either way it is time to go on.
        let _ = timeout(patience, under_way.wait_for(|count| *count == 0)).await;
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count -= 1);
    }
}
