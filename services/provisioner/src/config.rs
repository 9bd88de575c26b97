//! The part `[provisioner]` of the settings.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The settings that are built in; a file goes over them.
pub const DEFAULTS: &str = r#"
[provisioner]
hypervisor = "libvirt"
libvirt_socket = "/run/libvirt/libvirt-sock"
virt_type = "auto"
ready_seconds = 600

[provisioner.network]
name = "loam"
bridge = "loam0"
address = "10.88.0.1"
prefix = 24
"#;

/// The part `[provisioner]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What runs the VMs.
    pub hypervisor: HypervisorKind,
    /// The unix socket of libvirtd.
    pub libvirt_socket: PathBuf,
    /// KVM or emulation; `auto` finds out by booting a kernel.
    pub virt_type: VirtTypeSetting,
    /// The network that VMs are connected to.
    pub network: Network,
    /// The file with the keys of rows; `keys/rows.key` in the state folder where absent.
    #[serde(default)]
    pub rows_key_file: Option<PathBuf>,
    /// The user that the backup service runs as, where it is another than ours.
    #[serde(default)]
    pub backup_user: Option<String>,
    /// How many seconds a VM may take from its start until its guest answers, from 1 to 7200. Emulated guests on a busy
    /// host need minutes.
    pub ready_seconds: u64,
}

/// Callers that wait for an operation give up after a while, too: a longer wait would be for nobody.
const READY_SECONDS: std::ops::RangeInclusive<u64> = 1..=7200;

impl Config {
    /// The file with the keys of rows.
    pub fn rows_key_file(&self, state_dir: &Path) -> PathBuf {
        self.rows_key_file.clone().unwrap_or_else(|| state_dir.join("keys/rows.key"))
    }

    /// Checks what its type does not.
    ///
    /// # Errors
    /// A sentence with the key.
    pub fn check(&self) -> Result<(), String> {
        if READY_SECONDS.contains(&self.ready_seconds) {
            return Ok(());
        }
        let (least, most) = (READY_SECONDS.start(), READY_SECONDS.end());
        Err(format!("provisioner.ready_seconds: must be from {least} to {most}, not {}", self.ready_seconds))
    }
}

/// What runs the VMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HypervisorKind {
    /// QEMU, through libvirt.
    Libvirt,
    /// Nothing: VMs are simulated, and every reply says so.
    Simulated,
}

/// KVM or emulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VirtTypeSetting {
    /// KVM where it is proven to work, else emulation.
    Auto,
    /// KVM.
    Kvm,
    /// Emulation.
    Qemu,
}

/// The libvirt network that we define.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// libvirt's name for it.
    pub name: String,
    /// The bridge on the host, at most 15 characters.
    pub bridge: String,
    /// The host's own address on it; guests get those above it.
    pub address: Ipv4Addr,
    /// How many leading bits of the address are the network's, from 16 to 28.
    pub prefix: u8,
}
