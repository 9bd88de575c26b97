//! The provisioner on real machines: a private libvirtd, QEMU and the tiny guest.
//!
//! ```text
//! tests/harness/realm cargo nextest run -p provisioner --test real
//! ```
//!
//! Outside a realm these tests say that they were skipped; where `CI` is set that is an error.

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod life;
mod realm;
mod suites;
