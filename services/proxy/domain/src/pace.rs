//! Who is too slow. Not the time that a transfer takes counts, but the time that we wait in vain for the other side.
//!
//! An upload of hours is welcome; a peer that sends a byte now and then to hold a place is not. Time during which *we*
//! are the slow side is never counted.

use std::time::Duration;

/// What is asked of a peer that sends or takes a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PaceLimits {
    /// The longest single wait for any byte.
    pub idle_max: Duration,
    /// Waiting that is free of charge before the average rate counts.
    pub grace: Duration,
    /// Bytes that must have moved for each second of waiting, on average.
    pub bytes_per_second_min: u64,
}

impl Default for PaceLimits {
    /// 30 seconds of silence, or less than 240 bytes a second after 20 seconds: no honest line is that slow.
    fn default() -> Self {
        Self { idle_max: Duration::from_secs(30), grace: Duration::from_secs(20), bytes_per_second_min: 240 }
    }
}

/// How a transfer has gone so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    waited: Duration,
    moved: u64,
}

impl Pace {
    /// Bytes moved, after waiting so long for them.
    pub fn moved(&mut self, bytes: u64, waited: Duration) {
        self.moved = self.moved.saturating_add(bytes);
        self.waited = self.waited.saturating_add(waited);
    }

    /// How long the next wait may last.
    pub fn patience(&self, limits: &PaceLimits) -> Duration {
        let earned =
            Duration::from_secs(self.moved.checked_div(limits.bytes_per_second_min).unwrap_or(u64::MAX));
        limits.grace.max(earned).saturating_sub(self.waited).min(limits.idle_max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: PaceLimits = PaceLimits {
        idle_max: Duration::from_secs(30),
        grace: Duration::from_secs(20),
        bytes_per_second_min: 240,
    };

    #[test]
    fn a_byte_a_second_lasts_for_the_grace_and_no_longer() {
        let mut pace = Pace::default();
        let mut seconds = 0;
        while pace.patience(&LIMITS) >= Duration::from_secs(1) {
            pace.moved(1, Duration::from_secs(1));
            seconds += 1;
        }
        assert_eq!(seconds, 20);
    }

    #[test]
    fn a_steady_line_may_take_all_day() {
        let mut pace = Pace::default();
        for _ in 0..86_400 {
            pace.moved(1024, Duration::from_secs(1));
        }
        assert_eq!(pace.patience(&LIMITS), LIMITS.idle_max);
    }

    #[test]
    fn without_a_least_rate_only_silence_counts() {
        let limits = PaceLimits { bytes_per_second_min: 0, ..LIMITS };
        let mut pace = Pace::default();
        pace.moved(1, Duration::from_secs(100_000));
        assert_eq!(pace.patience(&limits), limits.idle_max);
    }

    proptest! {
        #[test]
        fn patience_never_exceeds_the_idle_limit_and_bytes_never_shorten_it(
            moves in prop::collection::vec((0u64..1_000_000, 0u64..100_000), 0..50), more in 0u64..1_000_000,
        ) {
            let mut pace = Pace::default();
            for (bytes, milliseconds) in moves {
                pace.moved(bytes, Duration::from_millis(milliseconds));
                let before = pace.patience(&LIMITS);
                prop_assert!(before <= LIMITS.idle_max);
                pace.moved(more, Duration::ZERO);
                prop_assert!(pace.patience(&LIMITS) >= before);
            }
        }
    }
}
