//! The ports: what the provisioner needs from outside. Each has a real adapter and, where that can be done without, a
//! simulated one; one suite per port (`tests/support/suites.rs`) runs on every adapter.
//!
//! ```text
//!   Hypervisor  VMs: define, start, pause, stop, find; exports of the disks of VMs that are on
//!   Disks       files: seeds, overlays, NoCloud volumes, restored disks; exports of the disks of VMs that are off
//!   GuestShell  the inside of a VM: SSH as root
//! ```
//!
//! Every call ends in bounded time. Whatever creates something is idempotent. An error says what was attempted and keeps
//! its cause; whether it is transient for a saga is decided at the saga (`sagas/steps/error.rs`).

mod disks;
mod guest_shell;
mod hypervisor;
mod vm_spec;

use std::sync::Arc;

pub use disks::{DiskError, DiskReader, Disks, ImportedSeedImage, ProgressCallback, SeedImageSource};
pub use guest_shell::{Guest, GuestShell, ScriptToRun, ShellError};
pub use hypervisor::{
    ChangeCallback, Export, GuestShutdownMethod, Hypervisor, HypervisorError, HypervisorErrorKind, MarkedVm,
};
pub use vm_spec::{Disk, FoundDisk, Image, ImageFormat, VmMark, VmSpec, disk_changes};

/// The cause of an error, whatever adapter it comes from.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The adapters behind the ports.
#[derive(Clone)]
pub struct Ports {
    /// Runs VMs.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Keeps disk images.
    pub disks: Arc<dyn Disks>,
    /// Runs scripts inside VMs.
    pub shell: Arc<dyn GuestShell>,
}
