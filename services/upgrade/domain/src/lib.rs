//! The upgrade service's decisions: which release is trusted, and whether a new build is healthy.
//!
//! ```text
//!   signature + manifest bytes --TrustedKeys::verify--> trusted bytes --Release::read--> Release
//!                                    |                                    |
//!                          unsigned, untrusted                 unreadable, not replaceable
//!
//!   digest of the executable --Release::check--> the one that was signed, or altered
//!
//!   what is observed of the new build, again and again --HealthWatch::observe--> wait / healthy / failed
//! ```
//!
//! Nothing of a manifest is read before its signature was verified with a trusted key. A signature says who made a
//! release, not that it is the newest: an old one is known by its version. Nothing here touches a disk or a clock. Next: `upgrade` carries out what is decided here.

mod health_watch;
mod release;
mod trust;
mod version;

pub use health_watch::{HealthObservation, HealthVerdict, HealthWatch};
pub use release::{BUILD_DIGITS, Release};
pub use trust::TrustedKeys;
pub use version::{highest_version, is_older_version};
