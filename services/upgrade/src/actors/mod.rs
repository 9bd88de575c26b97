//! The actors of the upgrade service, with the size of each mailbox.
//!
//! ```text
//!   desk --(64)--> Gatekeeper --begin--> operations (saga apply_release)
//! ```
//!
//! Listing services needs no actor: nothing is kept.

mod gatekeeper;

pub(crate) use gatekeeper::{Apply, Gatekeeper};
