//! The definition of a VM for a hypervisor: its disks, its devices and its mark.

use std::path::PathBuf;

use contract::{ByteCount, DiskName, MacAddress, OperationId, Realm, VmName, VmUuid};
use serde::{Deserialize, Serialize};

/// A VM as a hypervisor is to define it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmSpec {
    /// The hypervisor's name for it, unique on the host.
    pub name: String,
    /// Its UUID.
    pub uuid: VmUuid,
    /// The MAC address of its network card.
    pub mac: MacAddress,
    /// Virtual processors.
    pub cpu_count: u32,
    /// Memory in bytes.
    pub ram_size: ByteCount,
    /// Its disks, the one to boot from first.
    pub disks: Vec<Disk>,
    /// Its NoCloud volume.
    pub nocloud_volume: PathBuf,
    /// The file that its serial console is logged to.
    pub console_log: PathBuf,
    /// The TCP ports on which its guest is going to serve; only the simulation uses them.
    pub simulated_ports: Vec<u16>,
    /// Its mark.
    pub mark: VmMark,
}

/// The mark on every VM that we define; a VM without it is never touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmMark {
    /// The realm: several may share a host.
    pub realm: Realm,
    /// Its name in the realm.
    pub vm: VmName,
    /// Its record's generation.
    pub cloud_init_generation: u64,
    /// The operation that defined it.
    pub operation: OperationId,
}

/// One disk of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its name in the VM (`vda`).
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

/// The formats that we write and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageFormat {
    /// QEMU's own format.
    Qcow2,
    /// The bytes of the disk.
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
