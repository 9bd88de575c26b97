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
use nix::unistd::User;
use provisioner_libvirt::qemu_user::QemuUser;

use crate::config::Config;
use crate::ports::Ports;

/// libvirt, QEMU's tools and SSH, with their files under `state`.
///
/// # Errors
/// What is wrong with settings or folders.
pub async fn real(config: &Config, state: &Path) -> anyhow::Result<Ports> {
    let qemu = QemuUser::find().context("finding the user that QEMU runs as")?;
    let disks = open_disks(config, state, Some(qemu))?;
    let libvirt = libvirt::LibvirtHypervisor::open(config, state).await.map_err(anyhow::Error::msg)?;
    let shell = ssh::RusshShell::open(&state.join("keys/ssh_ed25519"))?;
    Ok(Ports { hypervisor: Arc::new(libvirt), disks: Arc::new(disks), shell: Arc::new(shell) })
}

/// A simulation on real disk images, with its files under `state`.
///
/// # Errors
/// What is wrong with folders.
pub async fn simulated(config: &Config, state: &Path) -> anyhow::Result<Ports> {
    let disks = open_disks(config, state, None)?;
    let hypervisor = Arc::new(simulated::SimulatedHypervisor::open(&state.join("simulated")).await?);
    tracing::warn!("VMs are simulated: nothing here runs a real one");
    let shell = simulated::SimulatedShell::new(Arc::clone(&hypervisor));
    Ok(Ports { hypervisor, disks: Arc::new(disks), shell: Arc::new(shell) })
}

fn open_disks(
    config: &Config,
    state: &Path,
    qemu: Option<QemuUser>,
) -> anyhow::Result<qemu_img::QemuImgDisks> {
    let disks = qemu_img::QemuImgDisks::open(state, qemu).context("opening the folders for disks")?;
    let Some(name) = &config.backup_user else { return Ok(disks) };
    let user = User::from_name(name).with_context(|| format!("looking up the user {name}"))?;
    let user = user.with_context(|| format!("provisioner.backup_user: there is no user {name}"))?;
    Ok(disks.read_by(Some(user.uid.as_raw())))
}
