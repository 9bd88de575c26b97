//! The provisioner on real VMs: a private libvirtd, QEMU and the tiny guest.
//!
//! ```text
//! tests/harness/realm cargo nextest run -p provisioner --test real
//! ```
//!
//! Outside a realm these tests are skipped and say so; where `CI` is set that is an error.

#[path = "../support/mod.rs"]
mod support;

mod faults;
mod life;
mod realm;
mod suites;
