//! A machine, its disks and its mark, as a hypervisor is told of them.

use std::path::PathBuf;

use contract::{ByteCount, DiskName};
use serde::{Deserialize, Serialize};

/// A machine as a hypervisor is to have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The hypervisor's name for it, unique on the host.
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// The address of its network card.
    pub mac: String,
    /// Virtual processors.
    pub cpu_count: u32,
    /// Memory.
    pub ram_size: ByteCount,
    /// Its disks, the one to boot from first.
    pub disks: Vec<Disk>,
    /// Its NoCloud volume.
    pub nocloud: PathBuf,
    /// The file that keeps what its serial console says.
    pub console_log: PathBuf,
    /// The ports on which its guest is going to serve; only a simulation needs to be told.
    pub served_ports: Vec<u16>,
    /// Whose it is.
    pub mark: VmMark,
}

/// The stamp on everything we make; without it nothing of ours touches a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmMark {
    /// The realm: several may share a host.
    pub realm: String,
    /// Its name in the realm.
    pub vm: String,
    /// Which making of it this is.
    pub generation: u64,
    /// The operation that made it.
    pub operation: String,
}

/// One disk of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its name in the machine (`vda`).
    pub name: DiskName,
    /// Its image.
    pub image: Image,
    /// What the image is an overlay of.
    pub base: Option<Image>,
}

/// A disk image in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: ImageFormat,
}

/// The formats we make and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageFormat {
    /// QEMU's own.
    Qcow2,
    /// Bytes.
    Raw,
}

impl ImageFormat {
    /// As QEMU's tools call it; also the file's extension.
    pub fn name(self) -> &'static str {
        match self {
            ImageFormat::Qcow2 => "qcow2",
            ImageFormat::Raw => "raw",
        }
    }
}
