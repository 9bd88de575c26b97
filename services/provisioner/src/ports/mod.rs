//! What the provisioner asks of the world. Each port has a real adapter and, where the world can be done without, an
//! honest simulated one; one suite per port (`tests/*_suite.rs`) runs on every adapter.
//!
//! ```text
//!   Hypervisor  machines: defined, started, stopped, found again; doors to the disks of running ones
//!   Disks       files: seeds, overlays, NoCloud volumes, places for restored disks; doors to the disks of stopped ones
//!   GuestShell  the inside of a machine: SSH as root
//! ```
//!
//! Every call ends in bounded time. Whatever makes something may be asked twice.

mod disks;
mod guest_shell;
mod hypervisor;
mod machine;

pub use disks::{DiskError, Disks, ImportedSeed, SeedSource, Told};
pub use guest_shell::{Guest, GuestShell, ScriptRun, ShellError};
pub use hypervisor::{Door, Hypervisor, HypervisorError, Marked, Power, StopWay};
pub use machine::{Disk, Image, ImageFormat, Machine, MachineMark};
