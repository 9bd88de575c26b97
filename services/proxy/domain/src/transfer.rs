//! Minimum transfer rates. What counts is not how long a transfer takes, but how long the proxy waits for the peer.
//!
//! An upload may take hours; a peer may not send a byte now and then to keep a connection open. Time during which the
//! proxy or the other peer is the slow side is never counted.

use std::time::Duration;

/// How slowly a peer may send or read a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowTransferLimits {
    /// The longest single wait for any byte.
    pub idle_max: Duration,
    /// The total wait before the average rate counts.
    pub grace: Duration,
    /// Bytes that must have bytes for each second of waiting, on average.
    pub bytes_per_second_min: u64,
}

impl Default for SlowTransferLimits {
    /// 30 seconds without a byte, or less than 240 bytes a second after 20 seconds: no usable network is that slow.
    fn default() -> Self {
        Self { idle_max: Duration::from_secs(30), grace: Duration::from_secs(20), bytes_per_second_min: 240 }
    }
}

/// The rate of a transfer so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeasuredTransferRate {
    waited: Duration,
    bytes: u64,
}

impl MeasuredTransferRate {
    /// Records bytes, and how long they were waited for.
    pub fn record(&mut self, bytes: u64, waited: Duration) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.waited = self.waited.saturating_add(waited);
    }

    /// The longest that the next wait may take.
    pub fn wait_max(&self, limits: &SlowTransferLimits) -> Duration {
        let allowed =
            Duration::from_secs(self.bytes.checked_div(limits.bytes_per_second_min).unwrap_or(u64::MAX));
        limits.grace.max(allowed).saturating_sub(self.waited).min(limits.idle_max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: SlowTransferLimits = SlowTransferLimits {
        idle_max: Duration::from_secs(30),
        grace: Duration::from_secs(20),
        bytes_per_second_min: 240,
    };

    #[test]
    fn a_byte_a_second_is_allowed_for_the_grace_and_no_longer() {
        let mut rate = MeasuredTransferRate::default();
        let mut seconds = 0;
        while rate.wait_max(&LIMITS) >= Duration::from_secs(1) {
            rate.record(1, Duration::from_secs(1));
            seconds += 1;
        }
        assert_eq!(seconds, 20);
    }

    #[test]
    fn a_steady_transfer_may_take_all_day() {
        let mut rate = MeasuredTransferRate::default();
        for _ in 0..86_400 {
            rate.record(1024, Duration::from_secs(1));
        }
        assert_eq!(rate.wait_max(&LIMITS), LIMITS.idle_max);
    }

    #[test]
    fn without_a_minimum_rate_only_the_idle_limit_counts() {
        let limits = SlowTransferLimits { bytes_per_second_min: 0, ..LIMITS };
        let mut rate = MeasuredTransferRate::default();
        rate.record(1, Duration::from_secs(100_000));
        assert_eq!(rate.wait_max(&limits), limits.idle_max);
    }

    proptest! {
        #[test]
        fn the_wait_never_exceeds_the_idle_limit_and_bytes_never_shorten_it(
            moves in prop::collection::vec((0u64..1_000_000, 0u64..100_000), 0..50), more in 0u64..1_000_000,
        ) {
            let mut rate = MeasuredTransferRate::default();
            for (bytes, milliseconds) in moves {
                rate.record(bytes, Duration::from_millis(milliseconds));
                let before = rate.wait_max(&LIMITS);
                prop_assert!(before <= LIMITS.idle_max);
                rate.record(more, Duration::ZERO);
                prop_assert!(rate.wait_max(&LIMITS) >= before);
            }
        }
    }
}
