//! Deadlines by which HTTP/2 clients must read their responses.
//!
//! Over HTTP/1 the socket itself shows a client that does not read. Over HTTP/2 a client can reply to pings and still
//! leave one response unread; then hyper does not poll that response's body, so no timer in the body would ever fire.
//! So each body sets a deadline for its last frame, and the connection checks all deadlines periodically.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use proxy_domain::transfer::SlowTransferLimits;
use tokio::time::{Instant, interval};

/// The deadlines of all responses on one connection.
#[derive(Debug)]
pub(super) struct ClientReadDeadlines {
    began: Instant,
    deadlines: Mutex<Vec<Weak<Deadline>>>,
}

/// When the last frame of a response must be read, in milliseconds since the connection began.
#[derive(Debug)]
struct Deadline(AtomicU64);

const NOTHING_TO_READ: u64 = u64::MAX;

/// The deadline of one response.
#[derive(Debug)]
pub(super) struct ResponseDeadline {
    deadline: Arc<Deadline>,
    began: Instant,
    limits: SlowTransferLimits,
}

impl Default for ClientReadDeadlines {
    fn default() -> Self {
        Self { began: Instant::now(), deadlines: Mutex::default() }
    }
}

impl ClientReadDeadlines {
    /// A deadline for one more response.
    pub(super) fn register(&self, limits: SlowTransferLimits) -> ResponseDeadline {
        let deadline = Arc::new(Deadline(AtomicU64::new(NOTHING_TO_READ)));
        let mut deadlines = self.deadlines.lock().unwrap_or_else(PoisonError::into_inner);
        deadlines.retain(|deadline| deadline.strong_count() > 0);
        deadlines.push(Arc::downgrade(&deadline));
        ResponseDeadline { deadline, began: self.began, limits }
    }

    /// Ends when a deadline was missed.
    pub(super) async fn missed(&self, limits: &SlowTransferLimits) {
        // Four checks within the limit make it at most a quarter longer than configured.
        let mut check = interval((limits.idle_max / 4).max(Duration::from_millis(1)));
        loop {
            check.tick().await;
            let now = milliseconds_since(self.began);
            let deadlines = self.deadlines.lock().unwrap_or_else(PoisonError::into_inner);
            let mut open = deadlines.iter().filter_map(Weak::upgrade);
            if open.any(|deadline| deadline.0.load(Ordering::Relaxed) < now) {
                return;
            }
        }
    }
}

impl ResponseDeadline {
    /// The client has read everything so far.
    pub(super) fn clear(&self) {
        self.deadline.0.store(NOTHING_TO_READ, Ordering::Relaxed);
    }

    /// The client has so many bytes to read, at the minimum rate or faster.
    pub(super) fn set(&self, bytes: usize) {
        let at_minimum_rate = (bytes as u64).checked_div(self.limits.bytes_per_second_min).unwrap_or(0);
        let wait_max = self.limits.idle_max + Duration::from_secs(at_minimum_rate);
        let wait_max = u64::try_from(wait_max.as_millis()).unwrap_or(u64::MAX);
        let deadline = milliseconds_since(self.began).saturating_add(wait_max);
        self.deadline.0.store(deadline, Ordering::Relaxed);
    }
}

fn milliseconds_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}
