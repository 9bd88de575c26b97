//! Clients that ask over HTTP/2 and do not take the answer.
//!
//! Over HTTP/1 the socket itself shows it. Over HTTP/2 a client can answer pings and still leave one answer lying; then
//! nobody asks that answer's body for more, so no timer in it would ever fire. Each body notes until when its last
//! piece is to be taken, and the connection looks at all of them now and then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use proxy_domain::pace::PaceLimits;
use tokio::time::{Instant, interval};

/// The answers on one connection.
#[derive(Debug)]
pub(super) struct Stalls {
    began: Instant,
    answers: Mutex<Vec<Weak<Answer>>>,
}

/// One answer: when its last piece is to be taken, in milliseconds since the connection began.
#[derive(Debug)]
struct Answer(AtomicU64);

const NOTHING_TO_TAKE: u64 = u64::MAX;

/// Watches one answer.
#[derive(Debug)]
pub(super) struct Taking {
    answer: Arc<Answer>,
    began: Instant,
    limits: PaceLimits,
}

impl Default for Stalls {
    fn default() -> Self {
        Self { began: Instant::now(), answers: Mutex::default() }
    }
}

impl Stalls {
    pub(super) fn watch(&self, limits: PaceLimits) -> Taking {
        let answer = Arc::new(Answer(AtomicU64::new(NOTHING_TO_TAKE)));
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|answer| answer.strong_count() > 0);
        answers.push(Arc::downgrade(&answer));
        Taking { answer, began: self.began, limits }
    }

    /// Ends when an answer has been left lying.
    pub(super) async fn any(&self, limits: &PaceLimits) {
        // Looking four times within the limit makes it at most a quarter longer than it says.
        let mut look = interval((limits.idle_max / 4).max(Duration::from_millis(1)));
        loop {
            look.tick().await;
            let now = since(self.began);
            let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            if answers.iter().filter_map(Weak::upgrade).any(|answer| answer.0.load(Ordering::Relaxed) < now) {
                return;
            }
        }
    }
}

impl Taking {
    /// The client came for more.
    pub(super) fn came(&self) {
        self.answer.0.store(NOTHING_TO_TAKE, Ordering::Relaxed);
    }

    /// The client was handed so many bytes; it may take them as slowly as the least rate allows.
    pub(super) fn handed(&self, bytes: usize) {
        let at_least_rate = (bytes as u64).checked_div(self.limits.bytes_per_second_min).unwrap_or(0);
        let patience = self.limits.idle_max + Duration::from_secs(at_least_rate);
        let deadline =
            since(self.began).saturating_add(u64::try_from(patience.as_millis()).unwrap_or(u64::MAX));
        self.answer.0.store(deadline, Ordering::Relaxed);
    }
}

fn since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}
