//! Everything that Loam says to libvirt, behind one blocking type: [`Connection`].
//!
//! **It promises** that every call ends in bounded time, whatever libvirtd does; that a connection heals by itself once
//! the daemon is back; that asking twice is the same as asking once ([`Change`]); and that an error tells a missing
//! daemon from a refusing, a silent and a forbidding one ([`Error`]).
//!
//! ```text
//!   one OS thread (a SyncArbiter's)                                             libvirtd
//!   +------------------------------+        +-- Relay, two pump threads --+        |
//!   | Connection --> libvirt's C   |--unix--|  bytes, unread, both ways   |--unix--+--> QEMU, dnsmasq
//!   |     |          client        | socket |                             | socket |
//!   |     +-- arms a deadline -----+--------|> watchdog: cuts when it is  |
//!   +------------------------------+        |  over; the C call returns   |
//!                                           +-----------------------------+
//! ```
//!
//! libvirt's client cannot be told to give up, but its socket can be taken away: that is what the relay is for.
//!
//! **It does not know** what a virtual machine is for, who wants it, any bus, or any of our other crates: it is given a
//! [`DomainSpec`] and gives back libvirt's facts. It keeps no state beyond its socket, and it never decides that a
//! domain should die. Disk data never passes through here; see [`backup`] for the NBD socket it travels on.
//!
//! **A thread that has used a connection must not end while the process does**: OpenSSL, which comes with libvirt's client,
//! tidies up at both ends and crashes where they meet. Keep such threads, or join them before the end.
//!
//! Where to go next: [`connection`] for how a call is made; [`relay`] for the cut; [`domain`] for the machine's shape;
//! [`lifecycle`], [`guest`], [`network`] and [`backup`] for what can be asked; [`accelerator`] for KVM or emulation;
//! [`qemu_user`] for the folders QEMU must reach. `tests/real.rs` runs all of it against a real libvirtd
//! (`tests/harness/realm cargo nextest run -p provisioner-libvirt`).
#![allow(unsafe_code)] // libvirt is a C library, and `virt` wraps neither backups, checkpoints nor freezing.

pub mod accelerator;
pub mod backup;
pub mod connection;
pub mod deadline;
pub mod domain;
pub mod error;
pub mod guest;
pub mod lifecycle;
pub mod network;
pub mod qemu_user;
mod raw;
pub mod relay;
mod xml;

pub use connection::{Change, Connection, DaemonVersion, Settings};
pub use deadline::{CallClass, Deadlines};
pub use domain::{
    BackingImage, DiskFormat, DiskSpec, DomainSpec, HostCache, MacAddress, Mark, NetworkCard, VirtType,
};
pub use error::Error;
pub use uuid::Uuid;
