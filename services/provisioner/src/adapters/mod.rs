//! The state behind the ports.
//!
//! ```text
//!   Hypervisor   libvirt::Libvirt              simulated::SimulatedHypervisor
//!   Disks        qemu_img::QemuImgDisks        (the same: disks are real files in a simulation, too)
//!   GuestShell   ssh::RusshShell               simulated::SimulatedShell
//! ```

pub mod libvirt;
pub mod qemu_img;
pub mod simulated;
pub mod ssh;
