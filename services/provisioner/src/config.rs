//! The part `[provisioner]` of the settings.

use std::net::Ipv4Addr;
use std::path::PathBuf;

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

/// What the provisioner is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What runs the machines.
    pub hypervisor: HypervisorKind,
    /// Where libvirtd listens.
    pub libvirt_socket: PathBuf,
    /// Hardware or software; `auto` finds out by booting a kernel.
    pub virt_type: VirtTypeWanted,
    /// The network on which guests hang.
    pub network: Network,
    /// How long a machine may take from its start until it answers. Emulated guests on a busy host need minutes.
    pub ready_seconds: u64,
}

/// Settings may not ask for more patience than this: whoever waits for an operation gives up, too.
const READY_SECONDS: std::ops::RangeInclusive<u64> = 1..=7200;

impl Config {
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

/// What runs the machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HypervisorKind {
    /// QEMU, through libvirt.
    Libvirt,
    /// Nothing: machines are pretended, and marked so in every answer.
    Simulated,
}

/// Hardware or software.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VirtTypeWanted {
    /// KVM where it is proven, else emulation.
    Auto,
    /// KVM.
    Kvm,
    /// Emulation.
    Qemu,
}

/// A network of libvirt's that is ours.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// libvirt's name for it.
    pub name: String,
    /// The bridge on the host, at most 15 characters.
    pub bridge: String,
    /// The host's own address on it.
    pub address: Ipv4Addr,
    /// How many leading bits of it are the network's: from 16 to 28.
    pub prefix: u8,
}
