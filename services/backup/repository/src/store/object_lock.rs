//! S3 Object Lock: objects that cannot be deleted for a while, whatever the credentials.
//!
//! ```text
//!   put       a pack, a snapshot, the config, a key roster: locked for the days asked for and a week more
//!   collect   what some snapshot needs and is locked for fewer days than asked for: again for that long
//! ```
//!
//! So what a repository holds at any time can be undeleted for as many days as its lock says, as long as it is collected
//! once a week. Each object's lock is extended once a week, not at each backup. In a bucket with Object Lock every
//! object has versions: deleting hides an object, and the store frees it when the lock is over and its rules for old
//! versions say so.

use std::time::Duration;

use chrono::{DateTime, Utc};
use http::HeaderName;
use serde::{Deserialize, Serialize};

const MODE: HeaderName = HeaderName::from_static("x-amz-object-lock-mode");
const UNTIL: HeaderName = HeaderName::from_static("x-amz-object-lock-retain-until-date");
/// A lock is this much longer than configured, so that it is extended seldom.
const SLACK_DAYS: u32 = 7;
/// Ten years. A longer one is a typing error that could not be undone.
const DAYS_MAX: u32 = 3653;

/// Who may end a lock before it expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockMode {
    /// Those with a special permission.
    Governance,
    /// No one, not even the owner of the bucket.
    Compliance,
}

/// The mode and the days of a repository's Object Lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct ObjectLock {
    mode: LockMode,
    days: u32,
}

/// A lock of no days, or of more than ten years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("objects are locked for 1 to {DAYS_MAX} days, not for {days}")]
pub struct InvalidLockDays {
    days: u32,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    mode: LockMode,
    days: u32,
}

impl TryFrom<Stored> for ObjectLock {
    type Error = InvalidLockDays;

    fn try_from(stored: Stored) -> Result<ObjectLock, InvalidLockDays> {
        ObjectLock::new(stored.mode, stored.days)
    }
}

impl From<ObjectLock> for Stored {
    fn from(lock: ObjectLock) -> Stored {
        Stored { mode: lock.mode, days: lock.days }
    }
}

impl ObjectLock {
    /// A lock of 1 to 3653 days.
    ///
    /// # Errors
    /// For another number of days.
    pub fn new(mode: LockMode, days: u32) -> Result<ObjectLock, InvalidLockDays> {
        if (1..=DAYS_MAX).contains(&days) {
            Ok(ObjectLock { mode, days })
        } else {
            Err(InvalidLockDays { days })
        }
    }

    /// Who may end it before it expires.
    pub fn mode(&self) -> LockMode {
        self.mode
    }

    /// For how many days, at least, what a snapshot needs is locked at any time.
    pub fn days(&self) -> u32 {
        self.days
    }

    /// What is stored or extended at a moment is locked until then.
    pub(crate) fn from(&self, now: DateTime<Utc>) -> LockUntil {
        LockUntil { mode: self.mode, until: now + days(self.days + SLACK_DAYS) }
    }

    /// Whether a lock until `until` is to be extended.
    pub(crate) fn runs_out(&self, until: DateTime<Utc>, now: DateTime<Utc>) -> bool {
        until < now + days(self.days)
    }
}

fn days(days: u32) -> Duration {
    Duration::from_hours(24 * u64::from(days))
}

/// One object's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LockUntil {
    pub(crate) mode: LockMode,
    pub(crate) until: DateTime<Utc>,
}

impl LockUntil {
    /// The headers of a request that locks what it writes.
    pub(crate) fn headers(&self) -> [(HeaderName, String); 2] {
        [(MODE, self.mode_name().to_owned()), (UNTIL, self.until_text())]
    }

    /// The mode as S3 writes it.
    pub(crate) fn mode_name(&self) -> &'static str {
        match self.mode {
            LockMode::Governance => "GOVERNANCE",
            LockMode::Compliance => "COMPLIANCE",
        }
    }

    /// The time as S3 writes it: ISO 8601 in UTC, of whole seconds.
    pub(crate) fn until_text(&self) -> String {
        self.until.format("%Y-%m-%dT%H:%M:%SZ").to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_extended_once_a_week_and_never_runs_below_its_days() {
        let lock = ObjectLock::new(LockMode::Compliance, 30).expect("a month");
        let day = |day: i64| DateTime::from_timestamp(day * 86_400, 0).expect("a day");
        let (mut until, mut extended) = (lock.from(day(0)).until, 0);
        for today in 1..=365 {
            if lock.runs_out(until, day(today)) {
                until = lock.from(day(today)).until;
                extended += 1;
            }
            assert!(until >= day(today + 30));
        }
        assert!((40..=53).contains(&extended), "extended {extended} times");
    }

    #[test]
    fn a_lock_of_no_days_or_of_a_century_is_refused() {
        assert!(ObjectLock::new(LockMode::Governance, 0).is_err());
        assert!(ObjectLock::new(LockMode::Compliance, 36_500).is_err());
    }

    #[test]
    fn a_lock_is_written_as_s3_reads_it() {
        let until = DateTime::from_timestamp(1_700_000_000, 999_000_000).expect("a time");
        let lock_until = LockUntil { mode: LockMode::Governance, until };
        assert_eq!(
            (lock_until.mode_name(), lock_until.until_text().as_str()),
            ("GOVERNANCE", "2023-11-14T22:13:20Z")
        );
    }
}
