//! The provisioner: makes, starts, stops and removes virtual machines, keeps the seeds they grow from, and opens the
//! exports to their disks.
//!
//! ```text
//!    questions on the bus (contract::provisioner)
//!         |
//!      wiring ---- begins ----> sagas (operations; each step through a port)
//!         |                        |
//!      actors: Registry (records, tables)   ExportKeeper (leases)   Reconciler (every ten seconds)
//!         |                        |              |                   |
//!      ports:  Hypervisor        Disks        GuestShell
//!         |        |                |             |
//!      adapters: libvirt | simulated   qemu-img, qemu-nbd   SSH | simulated
//! ```
//!
//! It promises that a command given twice has one effect; that work which lasts survives the death of this process
//! and ends done or as before; that what is observed never erases what is desired; and that nothing is touched that
//! does not carry our mark. It does not know what a backup or a route is.
//!
//! Next: `wiring` for the questions, `sagas` for the work, `ports` for what is asked of the state, and the package
//! `provisioner-domain` for every decision.

pub mod actors;
pub mod adapters;
pub mod config;
pub mod metrics;
pub mod ports;
pub mod sagas;
mod service;
pub mod wiring;

pub use config::{Config, DEFAULTS};
pub use service::{House, Ports, build, run};
