//! The definition of a VM for a hypervisor: its disks, its devices and its mark.

use std::path::PathBuf;

use contract::{ByteCount, DiskName, MacAddress, OperationId, Realm, VmName, VmUuid};
use provisioner_domain::vm::disks_changed_advice;
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

/// A disk as a hypervisor's definition has it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundDisk {
    /// Its name in the VM (`vda`).
    pub name: String,
    /// The file that is written; `None` where there is none.
    pub path: Option<PathBuf>,
}

/// What others have changed about the disks of a VM, in words; `None` where each is the one that was defined. What others
/// have added is not among them.
pub fn disk_changes(uuid: &VmUuid, defined: &[Disk], found: &[FoundDisk]) -> Option<String> {
    let change = |disk: &Disk| {
        let now = found.iter().find(|now| now.name == disk.name.as_str());
        match now.and_then(|now| now.path.as_deref()) {
            Some(path) if path == disk.image.path => None,
            Some(path) => {
                Some(format!("{} is {}, not {}", disk.name, path.display(), disk.image.path.display()))
            }
            None => Some(format!("{} is not {} any more", disk.name, disk.image.path.display())),
        }
    };
    let changes: Vec<String> = defined.iter().filter_map(change).collect();
    (!changes.is_empty()).then(|| format!("its disk {}; {}", changes.join(", "), disks_changed_advice(uuid)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_others_changed_is_named_with_what_it_is_now() {
        let uuid = VmUuid::new("0b2d1b9e-5f0f-4e0b-8a4e-0d5f1b9e5f0f").expect("a UUID");
        let disk = |name: &str| Disk {
            name: name.parse().expect("a name"),
            image: Image { path: format!("/vms/{name}.qcow2").into(), format: ImageFormat::Qcow2 },
            base: None,
        };
        let found =
            |name: &str, path: Option<&str>| FoundDisk { name: name.into(), path: path.map(PathBuf::from) };
        let defined = [disk("vda"), disk("vdb")];
        let same = [found("vdb", Some("/vms/vdb.qcow2")), found("vda", Some("/vms/vda.qcow2"))];
        assert_eq!(disk_changes(&uuid, &defined, &same), None);
        let more = [same.to_vec(), vec![found("vdc", Some("/mine.raw"))]].concat();
        assert_eq!(disk_changes(&uuid, &defined, &more), None);
        for (now, expected) in [
            (found("vda", Some("/vms/vda.ext")), "vda is /vms/vda.ext, not /vms/vda.qcow2"),
            (found("vda", None), "vda is not /vms/vda.qcow2 any more"),
            (found("sda", Some("/vms/vda.qcow2")), "vda is not /vms/vda.qcow2 any more"),
        ] {
            let changes = disk_changes(&uuid, &defined, &[same[0].clone(), now]).expect(expected);
            assert!(changes.contains(expected) && changes.contains("blockcommit"), "{changes}");
        }
    }
}
