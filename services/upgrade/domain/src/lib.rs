//! The upgrade service's decisions: which release is to be trusted, and when a new build has proven itself.
//!
//! ```text
//!   signature + manifest bytes --TrustedKeys::verify--> trusted bytes --Release::read--> Release
//!                                    |                                    |
//!                          unsigned, untrusted                 unreadable, not replaceable
//!
//!   digest of the executable --Release::check--> the one that was signed, or altered
//!
//!   what is seen of the new build, again and again --Proof::see--> wait / proven / failed
//! ```
//!
//! Nothing of a manifest is read before its signature fits a trusted key. A signature says who made a release, not
//! that it is the newest: protection against old releases comes with a signed list of them, which there is not yet.
//! Nothing here touches a disk or a clock. Next: `upgrade` carries out what is decided here.

mod proof;
mod release;
mod trust;

pub use proof::{Proof, Seen, Verdict};
pub use release::{BUILD_DIGITS, Release};
pub use trust::TrustedKeys;
