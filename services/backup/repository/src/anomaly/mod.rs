//! Anomalies: whether a new backup differs from the earlier backups of its machine.
//!
//! Promises: findings depend on the arguments alone; statistics are used only when there were enough backups before; a
//! finding carries the numbers that led to it. It never reports that a backup is bad, only what is unusual.
//!
//! ```text
//!   Backup: time, disks, used, new, stored ─┐
//!   earlier ones of the same machine ───────┼─ Detector ──> findings, most severe first
//!   AnomalyThresholds, from the settings ───┘
//!
//!   changed share = new / used        far above median + deviations of the last ones?   ─┐ both: a sign of
//!   stored share  = stored / new      near 1, where it was well below?                  ─┘ encrypting malware
//! ```
//!
//! Medians tolerate that a first backup is all new and that an unusual day is part of the history afterwards. Two signs
//! are required, because either alone has ordinary causes: a system upgrade changes much but compresses, a copied film
//! does not compress but changes little.
//!
//! What it cannot detect: malware that encrypts less each day than the machine changes anyway, and the second sign on
//! disks that are encrypted already, where data never compressed. Then the first sign alone is reported.
//!
//! It knows no store and no clock.

mod backup;
mod detector;
mod expectations;
mod finding;
mod statistics;

pub use backup::{Backup, Disk};
pub use detector::Detector;
pub use expectations::{AnomalyThresholds, InvalidThresholds};
pub use finding::{Finding, Ratio, Severity};
