//! The adapters behind the ports.
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

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use provisioner_libvirt::qemu_user::QemuUser;

use crate::config::Config;
use crate::ports::Ports;

/// libvirt, QEMU's tools and SSH, with their files under `state`.
///
/// # Errors
/// What is wrong with settings or folders.
pub async fn real(config: &Config, state: &Path) -> anyhow::Result<Ports> {
    let qemu = QemuUser::find().context("finding the user that QEMU runs as")?;
    let disks = qemu_img::QemuImgDisks::open(state, Some(qemu)).context("opening the folders for disks")?;
    let libvirt = libvirt::LibvirtHypervisor::open(config, state).await.map_err(anyhow::Error::msg)?;
    let shell = ssh::RusshShell::open(&state.join("keys/ssh_ed25519"))?;
    Ok(Ports { hypervisor: Arc::new(libvirt), disks: Arc::new(disks), shell: Arc::new(shell) })
}

/// A simulation on real disk images, with its files under `state`.
///
/// # Errors
/// What is wrong with folders.
pub async fn simulated(state: &Path) -> anyhow::Result<Ports> {
    let disks = qemu_img::QemuImgDisks::open(state, None).context("opening the folders for disks")?;
    let hypervisor = Arc::new(simulated::SimulatedHypervisor::open(&state.join("simulated")).await?);
    tracing::warn!("VMs are simulated: nothing here runs a real one");
    let shell = simulated::SimulatedShell::new(Arc::clone(&hypervisor));
    Ok(Ports { hypervisor, disks: Arc::new(disks), shell: Arc::new(shell) })
}
