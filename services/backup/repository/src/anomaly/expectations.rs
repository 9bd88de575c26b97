//! What an operator expects of a machine's backups.

use serde::{Deserialize, Serialize};

const MIB: u64 = 1024 * 1024;

/// Thresholds, as a person writes them. [`Detector`](super::Detector) accepts valid ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AnomalyThresholds {
    /// Less in use than this is too small; 0 expects nothing.
    pub used_bytes_min: u64,
    /// Used bytes may shrink by so many percent from one backup to the next.
    pub shrink_percent_max: u8,
    /// So many backups before the new one are compared.
    pub history_max: u16,
    /// With fewer backups before, nothing is said about changes and compression.
    pub history_min: u16,
    /// A share of changes counts as unusual when it is so many deviations above the median. A deviation is 1.4826
    /// times the median of the distances from the median, which for a normal distribution is its standard deviation.
    pub deviations_max: u16,
    /// Changes below this share of the used bytes are never unusual: quiet machines have tiny deviations.
    pub changed_percent_min: u8,
    /// New bytes below this are never unusual, and too few to tell how a machine's data compresses.
    pub new_bytes_min: u64,
    /// New data that is stored with at least so many percent of its size does not compress.
    pub incompressible_stored_percent_min: u8,
    /// The second sign is checked where usually at most so many percent are stored.
    pub compressible_up_to_percent: u8,
    /// The next backup is expected within so many hours; 0 expects none.
    pub age_hours_max: u32,
}

impl Default for AnomalyThresholds {
    /// For machines backed up daily: a third may vanish, a fifth may change, a day and a half may pass.
    fn default() -> AnomalyThresholds {
        AnomalyThresholds {
            used_bytes_min: 0,
            shrink_percent_max: 33,
            history_max: 30,
            history_min: 3,
            deviations_max: 8,
            changed_percent_min: 20,
            new_bytes_min: MIB,
            incompressible_stored_percent_min: 90,
            compressible_up_to_percent: 80,
            age_hours_max: 36,
        }
    }
}

/// The expectations contradict themselves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value}: {why}")]
pub struct InvalidThresholds {
    field: &'static str,
    value: u64,
    why: &'static str,
}

/// A median and a deviation need at least three values.
const HISTORY_LEAST: u16 = 3;
/// Years of daily backups; what a machine did earlier says nothing of today.
const HISTORY_MOST: u16 = 3650;

impl AnomalyThresholds {
    pub(super) fn check(&self) -> Result<(), InvalidThresholds> {
        let refuse = |field, value, why| Err(InvalidThresholds { field, value, why });
        for (field, percent) in [
            ("shrink_percent_max", self.shrink_percent_max),
            ("changed_percent_min", self.changed_percent_min),
            ("incompressible_from_percent", self.incompressible_stored_percent_min),
            ("compressible_up_to_percent", self.compressible_up_to_percent),
        ] {
            if !(1..=100).contains(&percent) {
                return refuse(field, percent.into(), "a part of a whole is 1 to 100 percent");
            }
        }
        if self.compressible_up_to_percent >= self.incompressible_stored_percent_min {
            let value = self.compressible_up_to_percent.into();
            return refuse(
                "compressible_up_to_percent",
                value,
                "it must be below incompressible_from_percent",
            );
        }
        if !(HISTORY_LEAST..=self.history_max).contains(&self.history_min) {
            let why = "it takes 3 or more, and no more than history_max";
            return refuse("history_min", self.history_min.into(), why);
        }
        if self.history_max > HISTORY_MOST {
            return refuse("history_max", self.history_max.into(), "the most is 3650");
        }
        if self.deviations_max == 0 {
            return refuse("deviations_max", 0, "half of all backups would be unusual");
        }
        Ok(())
    }
}
