//! Which requests may be sent a second time.
//!
//! A request that an upstream may have processed is repeated only if it is idempotent, and only while most requests
//! succeed: an overloaded upstream must not get twice the load.

use http::Method;

/// Attempts for one request, the first included.
pub const ATTEMPTS_MAX: u32 = 2;
/// The largest body that is kept for a second attempt.
pub const REPLAY_BYTES_MAX: u64 = 64 * 1024;

/// How far a failed attempt had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptProgress {
    /// No byte of the request was sent: the connection was already closed.
    NothingSent,
    /// Bytes were sent, and no response began.
    Sent,
    /// The response had begun.
    Responding,
}

/// Whether the body can be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyReplay {
    /// The request has no body, or every byte read from the client so far was kept.
    Whole,
    /// Part of the body was not kept.
    Lost,
}

/// Whether a request that failed may be sent again.
pub fn may_retry(method: &Method, replay: BodyReplay, progress: AttemptProgress, attempts: u32) -> bool {
    attempts < ATTEMPTS_MAX
        && replay == BodyReplay::Whole
        && match progress {
            AttemptProgress::NothingSent => true,
            AttemptProgress::Sent => method.is_idempotent(),
            AttemptProgress::Responding => false,
        }
}

/// Allows retries for a fifth of recent requests.
///
/// Every request deposits one token, every retry withdraws five. The balance is bounded, so that earlier traffic does
/// not pay for a burst of retries, and it starts with enough for a few retries on a quiet proxy.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    tokens: u32,
}

/// A fifth of requests may be retried.
const TOKENS_PER_RETRY: u32 = 5;
/// A hundred retries in a row at most.
const TOKENS_MAX: u32 = 100 * TOKENS_PER_RETRY;
/// Ten retries before the first request.
const TOKENS_AT_START: u32 = 10 * TOKENS_PER_RETRY;

impl Default for RetryBudget {
    fn default() -> Self {
        Self { tokens: TOKENS_AT_START }
    }
}

impl RetryBudget {
    /// Counts a request.
    pub fn deposit(&mut self) {
        self.tokens = (self.tokens + 1).min(TOKENS_MAX);
    }

    /// Pays for a retry; false when the balance is too low.
    #[must_use]
    pub fn withdraw(&mut self) -> bool {
        let left = self.tokens.checked_sub(TOKENS_PER_RETRY);
        self.tokens = left.unwrap_or(self.tokens);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_unsent_or_idempotent_requests_are_repeated() {
        let may = |method: &Method, replay, progress| may_retry(method, replay, progress, 1);
        assert!(may(&Method::POST, BodyReplay::Whole, AttemptProgress::NothingSent));
        assert!(may(&Method::GET, BodyReplay::Whole, AttemptProgress::Sent));
        assert!(may(&Method::PUT, BodyReplay::Whole, AttemptProgress::Sent));
        assert!(!may(&Method::POST, BodyReplay::Whole, AttemptProgress::Sent));
        assert!(!may(&Method::PUT, BodyReplay::Lost, AttemptProgress::Sent));
        assert!(!may(&Method::POST, BodyReplay::Lost, AttemptProgress::NothingSent));
        assert!(!may(&Method::GET, BodyReplay::Whole, AttemptProgress::Responding));
        assert!(!may_retry(&Method::GET, BodyReplay::Whole, AttemptProgress::NothingSent, ATTEMPTS_MAX));
    }

    proptest! {
        #[test]
        fn retries_stay_within_a_fifth_of_requests_and_the_balance(moves in prop::collection::vec(any::<bool>(), 0..4000)) {
            let mut budget = RetryBudget::default();
            let (mut requests, mut retries) = (0, 0);
            for is_request in moves {
                if is_request {
                    budget.deposit();
                    requests += 1;
                } else if budget.withdraw() {
                    retries += 1;
                }
                prop_assert!(retries * TOKENS_PER_RETRY <= requests + TOKENS_AT_START);
                prop_assert!(budget.tokens <= TOKENS_MAX);
            }
        }
    }
}
