//! The definition of a virtual machine as libvirt should have it, and the mark by which it is recognised.
//!
//! ```text
//!   DomainSpec --document.rs--> domain XML      q35, no video, no USB:
//!     Mark ----------------------> <metadata>     vda.. root and data disks (qcow2 over a chain, or raw)
//!     DiskSpec x n ---------------> <disk>         last: the NoCloud disk, read-only
//!     NetworkInterface -----------> <interface>    virtio, serial console with a log file,
//!                                                  agent channel, entropy, balloon
//! ```
//!
//! Where to go next: [`document`] for why each device is there; [`mark`] for adoption; `changes` for what others change
//! in a domain of ours.

pub(crate) mod changes;
pub mod document;
pub mod mark;

use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use uuid::Uuid;

pub use changes::FoundDisk;
pub use mark::Mark;

/// A whole virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainSpec {
    /// libvirt's name for it; unique on the host.
    pub name: String,
    /// Its UUID, which names it everywhere.
    pub uuid: Uuid,
    /// Whose it is, and what it was made from.
    pub mark: Mark,
    /// Memory, in MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub vcpus: u32,
    /// KVM or emulation.
    pub virt_type: VirtType,
    /// The disks, the one to boot from first.
    pub disks: Vec<DiskSpec>,
    /// A NoCloud disk image (FAT, label `cidata`), shown read-only after the others.
    pub nocloud: Option<PathBuf>,
    /// Its network interface; without one it has no network.
    pub network: Option<NetworkInterface>,
    /// A file that keeps the output of the serial console; virtlogd writes it.
    pub console_log: Option<PathBuf>,
}

/// What executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VirtType {
    /// The processor itself, through KVM.
    Kvm,
    /// QEMU's emulation (TCG): works everywhere, ten times slower.
    Qemu,
}

impl fmt::Display for VirtType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VirtType::Kvm => "kvm",
            VirtType::Qemu => "qemu",
        })
    }
}

/// One disk of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskSpec {
    /// The image that is written.
    pub path: PathBuf,
    /// Format of the image.
    pub format: DiskFormat,
    /// What lies below it, nearest first. Complete: libvirt does not probe images, so that none can name
    /// files that its owner should not read.
    pub backing_chain: Vec<BackingImage>,
    /// `vda`, `vdb`, ...: the guest's name, and the name in backups.
    pub target: String,
    /// Found inside as `/dev/disk/by-id/virtio-SERIAL`; at most 20 bytes count.
    pub serial: String,
    /// Whether the host's page cache is used.
    pub cache: DiskCache,
}

/// One layer below a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackingImage {
    /// The image.
    pub path: PathBuf,
    /// Format of the image.
    pub format: DiskFormat,
}

/// The formats we make and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskFormat {
    /// QEMU's format with overlays and dirty bitmaps, which checkpoints need.
    Qcow2,
    /// The disk's bytes and nothing else.
    Raw,
}

impl fmt::Display for DiskFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DiskFormat::Qcow2 => "qcow2",
            DiskFormat::Raw => "raw",
        })
    }
}

/// libvirt's `cache` of a disk: whether its data is kept in the host's page cache as well as in the guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DiskCache {
    /// Not in the host's (`O_DIRECT`): memory is not used twice. Not every file system can.
    None,
    /// In both.
    Writeback,
}

impl DiskCache {
    /// What the file system under a folder can do, found out by trying.
    pub fn possible_in(folder: &Path) -> DiskCache {
        let probe = folder.join(format!(".direct-io-{}", std::process::id()));
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(nix::fcntl::OFlag::O_DIRECT.bits())
            .open(&probe);
        let cache = if opened.is_ok() { DiskCache::None } else { DiskCache::Writeback };
        // Where it could not be created there is nothing to remove.
        let _ = std::fs::remove_file(&probe);
        cache
    }
}

/// A virtio interface and its network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkInterface {
    /// libvirt's network (see [`crate::network`]).
    pub network: String,
    /// The interface's hardware address, by which its lease is found.
    pub mac: MacAddress,
}

/// A checked hardware address of one machine: six bytes, neither a group's nor all zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MacAddress([u8; 6]);

impl MacAddress {
    /// From its bytes; `None` for a group address or all zeros.
    pub fn new(bytes: [u8; 6]) -> Option<MacAddress> {
        (bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(MacAddress(bytes))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The text was no hardware address of one machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a hardware address like 52:54:00:12:34:56")]
pub struct NotAMacAddress(String);

impl FromStr for MacAddress {
    type Err = NotAMacAddress;

    fn from_str(text: &str) -> Result<Self, NotAMacAddress> {
        let wrong = || NotAMacAddress(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| wrong())?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        MacAddress::new(bytes).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_address_is_read_as_it_is_written_and_nonsense_is_refused() {
        let mac: MacAddress = "52:54:00:AB:cd:01".parse().expect("a good address");
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:01");
        for wrong in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:01:02",
            "1:2:3:4:5:6",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
            "+1:54:00:ab:cd:01",
        ] {
            assert!(wrong.parse::<MacAddress>().is_err(), "{wrong}");
        }
    }
}
