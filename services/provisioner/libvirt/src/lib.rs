//! All of Loam's calls to libvirt, behind one blocking type: [`Connection`].
//!
//! **It promises** that every call ends in bounded time, whatever libvirtd does; that a connection is reopened by
//! itself once the daemon is back; that calls are idempotent ([`EnsureOutcome`]); and that errors distinguish a daemon that is
//! missing, refuses, does not answer or denies permission ([`Error`]).
//!
//! ```text
//!   one OS thread (a SyncArbiter's)                                             libvirtd
//!   +------------------------------+        + LibvirtdRelay: two threads  +        |
//!   | Connection --> libvirt's C   |--unix--|  bytes, unread, both ways   |--unix--+--> QEMU, dnsmasq
//!   |     |          client        | socket |                             | socket |
//!   |     +-- arms a deadline -----+--------|> watchdog: cuts when it is  |
//!   +------------------------------+        |  over; the C call returns   |
//!                                           +-----------------------------+
//! ```
//!
//! libvirt's client cannot give up a call, but its socket can be closed under it: that is what the relay is for.
//!
//! **It does not know** what a virtual machine is for, who wants it, any bus, or any of our other crates: it takes a
//! [`DomainSpec`] and returns libvirt's facts. It keeps no state beyond its socket, and never decides by itself that a
//! domain has to end. Disk data never passes through here; see [`backup`] for the NBD socket it travels on.
//!
//! **A thread that has used a connection must not end while the process does**: OpenSSL, which comes with libvirt's client,
//! tidies up at both ends and crashes where they meet. Keep such threads, or join them before the end.
//!
//! Where to go next: [`connection`] for how a call is made; [`relay`] for the cut; [`domain`] for the machine's
//! definition; [`events`] for what libvirt reports by itself; [`lifecycle`], [`power`], [`guest`], [`network`] and [`backup`] for the calls; [`accelerator`] for KVM
//! or emulation; [`qemu_user`] for the folders QEMU must reach. `tests/real.rs` runs all of it against a real libvirtd
//! (`tests/harness/realm cargo nextest run -p provisioner-libvirt`).
#![allow(unsafe_code)] // libvirt is a C library, and `virt` wraps neither backups, checkpoints nor freezing.

pub mod accelerator;
pub mod backup;
pub mod connection;
pub mod deadline;
pub mod domain;
pub mod error;
pub mod events;
pub mod guest;
pub mod lifecycle;
pub mod network;
pub mod power;
pub mod qemu_user;
mod raw;
pub mod relay;
mod shutoff;
mod xml;

pub use connection::{Connection, EnsureOutcome, HypervisorVersions, Settings};
pub use deadline::{CallClass, Deadlines};
pub use domain::{
    BackingImage, DiskCache, DiskFormat, DiskSpec, DomainSpec, FoundDisk, MacAddress, Mark, NetworkInterface,
    VirtType,
};
pub use error::Error;
pub use power::{DiskError, DomainState, PauseReason};
pub use uuid::Uuid;
