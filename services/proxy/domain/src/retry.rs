//! What may be tried a second time.
//!
//! A request that may have been worked on is repeated only if repeating it cannot do harm, and only while most
//! requests succeed: an upstream in trouble is not helped by twice the load.

use http::Method;

/// Tries for one request, the first included.
pub const TRIES_MAX: u32 = 2;
/// The largest body that is kept for a second try.
pub const REPLAY_BYTES_MAX: u64 = 64 * 1024;

/// How far a failed try had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// No byte of the request was sent: no connection, or it was found closed.
    NothingSent,
    /// Something was sent and no answer began.
    Sent,
    /// The answer had begun.
    Answering,
}

/// What there is to send again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// The request has no body, or every byte taken from the client so far is still there.
    Whole,
    /// Part of the body is gone.
    Lost,
}

/// Whether a request that failed may be sent again.
pub fn may_retry(method: &Method, replay: Replay, progress: Progress, tries: u32) -> bool {
    tries < TRIES_MAX
        && replay == Replay::Whole
        && match progress {
            Progress::NothingSent => true,
            Progress::Sent => method.is_idempotent(),
            Progress::Answering => false,
        }
}

/// Allows retries for a fifth of recent requests.
///
/// Every request pays one coin in, every retry takes five out. The purse is bounded, so that good times long ago
/// do not pay for a storm now, and it starts with enough for a few retries on a quiet proxy.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    coins: u32,
}

/// A fifth of requests may be retried.
const COINS_A_RETRY: u32 = 5;
/// A hundred retries in a row at most.
const COINS_MAX: u32 = 100 * COINS_A_RETRY;
/// Ten retries before the first request was ever counted.
const COINS_AT_START: u32 = 10 * COINS_A_RETRY;

impl Default for RetryBudget {
    fn default() -> Self {
        Self { coins: COINS_AT_START }
    }
}

impl RetryBudget {
    /// Counts a request.
    pub fn request(&mut self) {
        self.coins = (self.coins + 1).min(COINS_MAX);
    }

    /// Pays for a retry; false when the purse is empty.
    #[must_use]
    pub fn take(&mut self) -> bool {
        let left = self.coins.checked_sub(COINS_A_RETRY);
        self.coins = left.unwrap_or(self.coins);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_what_cannot_do_harm_is_repeated() {
        let may = |method: &Method, replay, progress| may_retry(method, replay, progress, 1);
        assert!(may(&Method::POST, Replay::Whole, Progress::NothingSent));
        assert!(may(&Method::GET, Replay::Whole, Progress::Sent));
        assert!(may(&Method::PUT, Replay::Whole, Progress::Sent));
        assert!(!may(&Method::POST, Replay::Whole, Progress::Sent));
        assert!(!may(&Method::PUT, Replay::Lost, Progress::Sent));
        assert!(!may(&Method::POST, Replay::Lost, Progress::NothingSent));
        assert!(!may(&Method::GET, Replay::Whole, Progress::Answering));
        assert!(!may_retry(&Method::GET, Replay::Whole, Progress::NothingSent, TRIES_MAX));
    }

    proptest! {
        #[test]
        fn retries_stay_within_a_fifth_of_requests_and_the_purse(moves in prop::collection::vec(any::<bool>(), 0..4000)) {
            let mut budget = RetryBudget::default();
            let (mut requests, mut retries) = (0, 0);
            for is_request in moves {
                if is_request {
                    budget.request();
                    requests += 1;
                } else if budget.take() {
                    retries += 1;
                }
                prop_assert!(retries * COINS_A_RETRY <= requests + COINS_AT_START);
                prop_assert!(budget.coins <= COINS_MAX);
            }
        }
    }
}
