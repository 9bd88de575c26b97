//! Checks of the clock before anything is forgotten.
//!
//! A wrong clock dates snapshots wrongly, and then time-based rules keep the wrong ones. So before anything is forgotten
//! the host's clock is compared with other times:
//!
//! ```text
//!                    seen by us    newest snapshot     store's clock
//!   ──────────────────────|──────────────|──────────────────|───────────> time
//!     went back: refused  |              |        | trusted | ahead of the store: refused
//!                          snapshots in the future: refused
//! ```
//!
//! A time that cannot be read fails the check. A store in a folder of this host has this host's clock, and proves nothing
//! about it: then only the times seen and stored are compared.

use std::fmt;
use std::time::Duration;

/// Clocks that differ by more are not both right. Even a clock that is only set once a day stays within it.
pub const DIFFERENCE_MAX: Duration = Duration::from_mins(10);

/// A clock so far ahead of all backups, and of the store, has leapt.
pub const LEAP_MAX: Duration = Duration::from_hours(30 * 24);

/// The times to compare, in milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReadings {
    /// The host's clock.
    pub local_unix_ms: u64,
    /// The store's clock at the same moment; `None` when it could not be read.
    pub store_unix_ms: Option<u64>,
    /// When the newest snapshot of all machines says it was taken; `None` when there is none.
    pub newest_snapshot_unix_ms: Option<u64>,
    /// The latest time that this host has stored; `None` the first time.
    pub last_seen_unix_ms: Option<u64>,
}

/// The proof that the clock passed its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedTime {
    now_unix_ms: u64,
    seen_unix_ms: u64,
}

impl TrustedTime {
    /// The time it is.
    pub fn now_unix_ms(self) -> u64 {
        self.now_unix_ms
    }

    /// The latest time seen, to be stored for the next check.
    pub fn seen_unix_ms(self) -> u64 {
        self.seen_unix_ms
    }
}

/// Why the clock did not pass, so that nothing may be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClockError {
    /// The store's clock could not be read.
    #[error("nothing is forgotten: the store's clock could not be read, so ours cannot be checked")]
    StoreClockUnreadable,
    /// The clock is far ahead: all time windows would be empty.
    #[error(
        "nothing is forgotten: our clock is {} after the newest snapshot and {} ahead of the store's, \
         so it seems to have leapt forward",
        Rounded(*since_snapshot), Rounded(*ahead_of_store)
    )]
    LeaptForward {
        /// From the newest snapshot to our clock.
        since_snapshot: Duration,
        /// From the store's clock to ours.
        ahead_of_store: Duration,
    },
    /// One of the two clocks is wrong.
    #[error(
        "nothing is forgotten: our clock is {} {} the store's, and {} is the most that they may differ",
        Rounded(*by), if *ahead { "ahead of" } else { "behind" }, Rounded(DIFFERENCE_MAX)
    )]
    Disagree {
        /// Whether ours is the later one.
        ahead: bool,
        /// By how much.
        by: Duration,
    },
    /// The clock was set back, or was ahead when that time was seen.
    #[error(
        "nothing is forgotten: our clock is {} behind what this host has seen before, so it was set back",
        Rounded(*by)
    )]
    WentBack {
        /// By how much.
        by: Duration,
    },
    /// A snapshot's time is wrong, or the clock.
    #[error(
        "nothing is forgotten: the newest snapshot says it was taken {} from now: \
         forget that one by its id, or set the clock",
        Rounded(*by)
    )]
    SnapshotInFuture {
        /// By how much.
        by: Duration,
    },
}

/// Checks the host's clock.
///
/// # Errors
/// The reason, when it does not pass.
pub fn check(clocks: &ClockReadings) -> Result<TrustedTime, ClockError> {
    let ClockReadings {
        local_unix_ms: local,
        store_unix_ms,
        newest_snapshot_unix_ms,
        last_seen_unix_ms: seen_unix_ms,
    } = *clocks;
    let store = store_unix_ms.ok_or(ClockError::StoreClockUnreadable)?;
    let by = Duration::from_millis(local.abs_diff(store));
    if by > DIFFERENCE_MAX {
        let ahead = local > store;
        let since_snapshot = newest_snapshot_unix_ms.map(|newest| later(local, newest)).unwrap_or_default();
        return Err(if ahead && since_snapshot > LEAP_MAX {
            ClockError::LeaptForward { since_snapshot, ahead_of_store: by }
        } else {
            ClockError::Disagree { ahead, by }
        });
    }
    let seen = seen_unix_ms.unwrap_or(0);
    let by = later(seen, local);
    if by > DIFFERENCE_MAX {
        return Err(ClockError::WentBack { by });
    }
    let by = later(newest_snapshot_unix_ms.unwrap_or(0), local);
    if by > DIFFERENCE_MAX {
        return Err(ClockError::SnapshotInFuture { by });
    }
    Ok(TrustedTime { now_unix_ms: local, seen_unix_ms: local.max(seen) })
}

/// How much later one time is than another; nothing when it is earlier.
fn later(one_unix_ms: u64, other_unix_ms: u64) -> Duration {
    Duration::from_millis(one_unix_ms.saturating_sub(other_unix_ms))
}

/// A duration for people: in its largest unit that fits at least twice.
struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (each, unit) = match seconds {
            ..120 => (1, "s"),
            120..7_200 => (60, "minutes"),
            7_200..172_800 => (3_600, "hours"),
            _ => (86_400, "days"),
        };
        write!(f, "{} {unit}", seconds / each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;
    const DAY: u64 = 1_440 * MINUTE;
    const NOW: u64 = 20_000 * DAY;

    /// All at one time.
    fn clocks() -> ClockReadings {
        ClockReadings {
            local_unix_ms: NOW,
            store_unix_ms: Some(NOW),
            newest_snapshot_unix_ms: Some(NOW),
            last_seen_unix_ms: Some(NOW),
        }
    }

    fn refused(clocks: ClockReadings) -> String {
        check(&clocks).unwrap_err().to_string()
    }

    #[test]
    fn clocks_that_agree_are_trusted_and_the_latest_time_is_returned() {
        assert_eq!(check(&clocks()), Ok(TrustedTime { now_unix_ms: NOW, seen_unix_ms: NOW }));
        let seen = Some(NOW + 9 * MINUTE);
        let trusted = check(&ClockReadings { last_seen_unix_ms: seen, ..clocks() }).unwrap();
        assert_eq!(trusted.seen_unix_ms(), NOW + 9 * MINUTE);
        assert_eq!(trusted.now_unix_ms(), NOW);
    }

    #[test]
    fn ten_minutes_are_tolerated_in_every_direction() {
        for near in [NOW - 10 * MINUTE, NOW + 10 * MINUTE] {
            assert!(check(&ClockReadings { store_unix_ms: Some(near), ..clocks() }).is_ok());
            assert!(check(&ClockReadings { newest_snapshot_unix_ms: Some(near), ..clocks() }).is_ok());
            assert!(check(&ClockReadings { last_seen_unix_ms: Some(near), ..clocks() }).is_ok());
        }
    }

    #[test]
    fn the_first_check_and_an_empty_repository_need_no_history() {
        let first = ClockReadings { newest_snapshot_unix_ms: None, last_seen_unix_ms: None, ..clocks() };
        assert!(check(&first).is_ok());
    }

    #[test]
    fn a_machine_that_slept_for_a_year_is_trusted_when_the_store_agrees() {
        let past = Some(NOW - 365 * DAY);
        assert!(
            check(&ClockReadings { newest_snapshot_unix_ms: past, last_seen_unix_ms: past, ..clocks() })
                .is_ok()
        );
    }

    #[test]
    fn a_store_without_a_clock_is_not_trusted() {
        assert!(refused(ClockReadings { store_unix_ms: None, ..clocks() }).contains("could not be read"));
    }

    #[test]
    fn clocks_that_differ_are_not_trusted() {
        let behind = refused(ClockReadings { store_unix_ms: Some(NOW + 11 * MINUTE), ..clocks() });
        assert!(behind.contains("11 minutes behind the store's"), "{behind}");
        let ahead = refused(ClockReadings { store_unix_ms: Some(NOW - 3 * DAY), ..clocks() });
        assert!(ahead.contains("3 days ahead of the store's"), "{ahead}");
    }

    #[test]
    fn a_clock_that_leapt_to_another_year_is_not_trusted() {
        let leapt = refused(ClockReadings { local_unix_ms: NOW + 4_000 * DAY, ..clocks() });
        assert!(leapt.contains("leapt forward") && leapt.contains("4000 days ahead"), "{leapt}");
    }

    #[test]
    fn a_clock_that_went_back_is_not_trusted_even_together_with_the_store() {
        let seen = Some(NOW + 26 * 60 * MINUTE);
        let back = refused(ClockReadings { last_seen_unix_ms: seen, ..clocks() });
        assert!(back.contains("26 hours behind what this host has seen"), "{back}");
    }

    #[test]
    fn snapshots_from_the_future_are_not_trusted() {
        let future = refused(ClockReadings { newest_snapshot_unix_ms: Some(NOW + 2 * DAY), ..clocks() });
        assert!(future.contains("taken 2 days from now"), "{future}");
    }

    #[test]
    fn no_number_is_too_large_to_be_checked() {
        let clocks = ClockReadings {
            local_unix_ms: u64::MAX,
            store_unix_ms: Some(0),
            newest_snapshot_unix_ms: Some(0),
            last_seen_unix_ms: Some(u64::MAX),
        };
        assert!(matches!(check(&clocks), Err(ClockError::LeaptForward { .. })));
        let back = ClockReadings { local_unix_ms: 0, store_unix_ms: Some(0), ..clocks };
        assert!(matches!(check(&back), Err(ClockError::WentBack { .. })));
    }
}
