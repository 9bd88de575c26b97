//! Anomalies: does a new backup look like this machine's backups look?
//!
//! Promises: a judgement depends on its arguments alone; statistics speak only when there were enough backups before;
//! a finding carries the numbers that led to it. It never says that a backup is bad: it says what is unusual.
//!
//! ```text
//!   Backup: time, disks, used, new, stored ─┐
//!   earlier ones of the same machine ───────┼─ Judge ──> findings, gravest first
//!   Expectations, as a person writes them ──┘
//!
//!   changed share = new / used        far above median + deviations of the last ones?   ─┐ both: what encrypting
//!   stored share  = stored / new      near 1, where it was well below?                  ─┘ malware looks like
//! ```
//!
//! Medians bear that a first backup is all new and that a bad day is part of the history afterwards. Two signs are
//! asked for, because either alone has calm reasons: a system upgrade changes much but compresses, a copied film does
//! not compress but is no mass of changes.
//!
//! What it cannot see: malware that encrypts less each day than the machine changes anyway, and the second sign on
//! disks that are encrypted already, where data never compressed. Then the first sign alone is reported.
//!
//! It knows no store and no clock.

mod backup;
mod expectations;
mod finding;
mod judge;
mod statistics;

pub use backup::{Backup, Disk};
pub use expectations::{BadExpectations, Expectations};
pub use finding::{Finding, Severity, Share};
pub use judge::Judge;
