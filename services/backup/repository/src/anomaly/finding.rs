//! What may be unusual about a backup, with its numbers.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// A part of a whole: 0.25 is a quarter. Never negative, never without a value; may be above 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Ratio(pub(super) f64);

impl Ratio {
    /// How much `part` is of `whole`; `None` of nothing.
    pub fn of(part: u64, whole: u64) -> Option<Ratio> {
        (whole > 0).then(|| Ratio(part as f64 / whole as f64))
    }

    /// As a number: 0.25 is a quarter.
    pub fn value(self) -> f64 {
        self.0
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.0 * 100.0;
        if percent < 10.0 { write!(f, "{percent:.1} %") } else { write!(f, "{percent:.0} %") }
    }
}

/// How soon an operator should act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For information.
    Notice,
    /// Check today.
    Warning,
    /// Check now, and forget no older backup before.
    Alarm,
}

/// Something unusual.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// Much is new, and unlike before it does not compress: a sign of encrypting malware.
    LikelyEncryption {
        /// New bytes of those in use.
        changed: Ratio,
        /// What is usual.
        usually_changed: Ratio,
        /// Stored bytes of the new ones.
        stored: Ratio,
        /// What is usual.
        usually_stored: Ratio,
    },
    /// Less in use than the machine must have.
    TooSmall {
        /// Bytes in use.
        used_bytes: u64,
        /// What was configured.
        least_bytes: u64,
    },
    /// A disk of the backup before is not there.
    DiskVanished {
        /// Its name.
        disk: String,
        /// Its size then.
        size_bytes: u64,
    },
    /// Far less in use than in the backup before.
    Shrank {
        /// Bytes in use then.
        from_bytes: u64,
        /// Bytes in use now.
        to_bytes: u64,
    },
    /// Much more is new than usual.
    MassChange {
        /// New bytes of those in use.
        changed: Ratio,
        /// What is usual.
        usually_changed: Ratio,
        /// More than this is unusual for this machine.
        limit: Ratio,
    },
    /// The backup before is too old.
    Late {
        /// Since then.
        age: Duration,
        /// What was expected at most.
        expected: Duration,
    },
    /// New data does not compress, where it did before.
    Incompressible {
        /// Stored bytes of the new ones.
        stored: Ratio,
        /// What is usual.
        usually_stored: Ratio,
    },
    /// A disk has another size.
    DiskResized {
        /// Its name.
        disk: String,
        /// Its size before.
        from_bytes: u64,
        /// Its size now.
        to_bytes: u64,
    },
    /// A disk was not there before.
    DiskAppeared {
        /// Its name.
        disk: String,
        /// Its size.
        size_bytes: u64,
    },
}

impl Finding {
    /// How soon an operator should act.
    pub fn severity(&self) -> Severity {
        match self {
            Finding::LikelyEncryption { .. } => Severity::Alarm,
            Finding::TooSmall { .. }
            | Finding::DiskVanished { .. }
            | Finding::Shrank { .. }
            | Finding::MassChange { .. }
            | Finding::Late { .. } => Severity::Warning,
            // A disk that shrank lost what was behind its new end.
            Finding::DiskResized { from_bytes, to_bytes, .. } if to_bytes < from_bytes => Severity::Warning,
            Finding::Incompressible { .. } | Finding::DiskResized { .. } | Finding::DiskAppeared { .. } => {
                Severity::Notice
            }
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::LikelyEncryption { changed, usually_changed, stored, usually_stored } => write!(
                f,
                "looks as if malware had encrypted it: {changed} of the data is new (usually {usually_changed}) and \
                 compresses to {stored} (usually {usually_stored})"
            ),
            Finding::TooSmall { used_bytes, least_bytes } => {
                write!(f, "{} in use, and {} is the least expected", Size(*used_bytes), Size(*least_bytes))
            }
            Finding::DiskVanished { disk, size_bytes } => {
                write!(f, "disk {disk} of {} is missing", Size(*size_bytes))
            }
            Finding::Shrank { from_bytes, to_bytes } => {
                write!(f, "{} in use, and the backup before had {}", Size(*to_bytes), Size(*from_bytes))
            }
            Finding::MassChange { changed, usually_changed, limit } => write!(
                f,
                "{changed} of the data is new, usually {usually_changed}, and more than {limit} is unusual here"
            ),
            Finding::Late { age, expected } => {
                write!(f, "no backup for {}, and one was expected within {}", Age(*age), Age(*expected))
            }
            Finding::Incompressible { stored, usually_stored } => {
                write!(f, "new data compresses only to {stored}, usually to {usually_stored}")
            }
            Finding::DiskResized { disk, from_bytes, to_bytes } => {
                write!(f, "disk {disk} had {} and has {}", Size(*from_bytes), Size(*to_bytes))
            }
            Finding::DiskAppeared { disk, size_bytes } => {
                write!(f, "disk {disk} of {} is new", Size(*size_bytes))
            }
        }
    }
}

/// Bytes for people.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
            .into_iter()
            .find(|(bits, _)| self.0 >> bits > 0);
        match fits {
            None => write!(f, "{} bytes", self.0),
            Some((bits, unit)) => write!(f, "{:.1} {unit}", self.0 as f64 / (1u64 << bits) as f64),
        }
    }
}

/// A length of time for people, in hours or days.
struct Age(Duration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.0.as_secs() as f64 / 3600.0;
        if hours < 48.0 { write!(f, "{hours:.1} hours") } else { write!(f, "{:.1} days", hours / 24.0) }
    }
}
