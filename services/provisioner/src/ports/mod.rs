//! What the provisioner asks of the state. Each port has a real adapter and, where the state can be done without, an
//! honest simulated one; one suite per port (`tests/*_suite.rs`) runs on every adapter.
//!
//! ```text
//!   Hypervisor  machines: defined, started, stopped, found again; exports to the disks of running ones
//!   Disks       files: seeds, overlays, NoCloud volumes, places for restored disks; exports to the disks of stopped ones
//!   GuestShell  the inside of a machine: SSH as root
//! ```
//!
//! Every call ends in bounded time. Whatever makes something may be asked twice.

mod disks;
mod guest_shell;
mod hypervisor;
mod machine;

pub use disks::{DiskError, Disks, ImportedSeed, SeedSource, ReportProgress};
pub use guest_shell::{Guest, GuestShell, ScriptRun, ShellError};
pub use hypervisor::{Export, Hypervisor, HypervisorError, MarkedVm, Power, ShutdownMode};
pub use machine::{Disk, Image, ImageFormat, Machine, VmMark};
