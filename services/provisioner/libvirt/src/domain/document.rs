//! From a [`DomainSpec`] to libvirt's document. `document.golden.xml` beside this file shows one whole.
//!
//! | device | why |
//! | --- | --- |
//! | q35, `<acpi/>` | a PCIe machine; QEMU 10 does not start under libvirt 9 without the ACPI line |
//! | explicit `<backingStore>` down to an empty one | no probing: an image cannot point at files its owner may not read |
//! | `discard`, `detect_zeroes` | what the guest frees, the overlay and the next backup need not hold |
//! | NoCloud as a virtio disk | cloud kernels have no AHCI, so a CD-ROM would not be seen |
//! | serial console with a log | boot failures can be read afterwards |
//! | agent channel | ping, freeze, addresses, shutdown |
//! | entropy with a limit | first boot makes host keys |
//! | no video, USB, sound | memory, interrupts and attack surface without a use |

use crate::domain::{DiskCache, DiskFormat, DiskSpec, DomainSpec, NetworkInterface, VirtType};
use crate::xml::{Element, element};

/// Entropy per second: enough for host keys in the first second, too little to drain the host.
const ENTROPY_BYTES_PER_SECOND: u32 = 64 * 1024;

impl DomainSpec {
    /// The document that [`crate::Connection::define`] sends.
    pub fn document(&self) -> String {
        self.element().render()
    }

    fn element(&self) -> Element {
        element("domain")
            .with("type", self.virt_type)
            .child(element("name").holding(&self.name))
            .child(element("uuid").holding(self.uuid))
            .child(element("metadata").child(self.mark.element()))
            .child(element("memory").with("unit", "MiB").holding(self.memory_mib))
            .child(element("vcpu").with("placement", "static").holding(self.vcpus))
            .child(
                element("os")
                    .child(element("type").with("arch", "x86_64").with("machine", "q35").holding("hvm")),
            )
            .child(element("features").child(element("acpi")).child(element("apic")))
            .child(self.virt_type.cpu())
            .child(element("clock").with("offset", "utc"))
            .child(element("on_poweroff").holding("destroy"))
            .child(element("on_reboot").holding("restart"))
            .child(element("on_crash").holding("destroy"))
            .child(self.devices())
    }

    fn devices(&self) -> Element {
        let disks = self.disks.iter().enumerate().map(|(at, disk)| disk_element(disk, at + 1));
        element("devices")
            .children(disks)
            .children(self.nocloud_element())
            .child(element("controller").with("type", "usb").with("model", "none"))
            .children(self.network.as_ref().map(interface_element))
            .children(self.console_elements())
            .child(
                element("channel")
                    .with("type", "unix")
                    .child(element("target").with("type", "virtio").with("name", "org.qemu.guest_agent.0")),
            )
            .child(
                element("rng")
                    .with("model", "virtio")
                    .child(element("rate").with("bytes", ENTROPY_BYTES_PER_SECOND).with("period", 1000))
                    .child(element("backend").with("model", "builtin")),
            )
            .child(element("memballoon").with("model", "virtio"))
            .child(element("video").child(element("model").with("type", "none")))
    }

    fn nocloud_element(&self) -> Option<Element> {
        let path = self.nocloud.as_ref()?;
        Some(
            element("disk")
                .with("type", "file")
                .with("device", "disk")
                .child(element("driver").with("name", "qemu").with("type", DiskFormat::Raw))
                .child(element("source").with("file", path.display()))
                .child(element("backingStore"))
                .child(element("target").with("dev", self.nocloud_target()).with("bus", "virtio"))
                .child(element("readonly"))
                .child(element("serial").holding("nocloud")),
        )
    }

    /// The first free name after the disks.
    fn nocloud_target(&self) -> String {
        ('a'..='z')
            .map(|character| format!("vd{character}"))
            .find(|target| self.disks.iter().all(|disk| disk.target != *target))
            .expect("a domain has fewer than 26 disks")
    }

    fn console_elements(&self) -> Vec<Element> {
        let log = self
            .console_log
            .as_ref()
            .map(|path| element("log").with("file", path.display()).with("append", "on"));
        vec![
            element("serial")
                .with("type", "pty")
                .children(log)
                .child(element("target").with("type", "isa-serial").with("port", 0)),
            element("console")
                .with("type", "pty")
                .child(element("target").with("type", "serial").with("port", 0)),
        ]
    }
}

impl VirtType {
    pub(super) fn cpu(self) -> Element {
        match self {
            // What this host's processor has and another like it could take over.
            VirtType::Kvm => element("cpu").with("mode", "host-model"),
            // Everything QEMU can emulate: distributions built for newer processors start, too.
            VirtType::Qemu => element("cpu").with("mode", "maximum"),
        }
    }
}

fn disk_element(disk: &DiskSpec, boot_order: usize) -> Element {
    let cache = match disk.cache {
        DiskCache::None => "none",
        DiskCache::Writeback => "writeback",
    };
    // Innermost first: each layer holds the one below it, the last an empty one.
    let chain = disk.backing_chain.iter().rev().fold(element("backingStore"), |below, layer| {
        element("backingStore")
            .with("type", "file")
            .child(element("format").with("type", layer.format))
            .child(element("source").with("file", layer.path.display()))
            .child(below)
    });
    element("disk")
        .with("type", "file")
        .with("device", "disk")
        .child(
            element("driver")
                .with("name", "qemu")
                .with("type", disk.format)
                .with("cache", cache)
                .with("discard", "unmap")
                .with("detect_zeroes", "unmap"),
        )
        .child(element("source").with("file", disk.path.display()))
        .child(chain)
        .child(element("target").with("dev", &disk.target).with("bus", "virtio"))
        .child(element("serial").holding(&disk.serial))
        .child(element("boot").with("order", boot_order))
}

fn interface_element(interface: &NetworkInterface) -> Element {
    element("interface")
        .with("type", "network")
        .child(element("mac").with("address", interface.mac))
        .child(element("source").with("network", &interface.network))
        .child(element("model").with("type", "virtio"))
        // No network boot: its option ROM would only cost time.
        .child(element("rom").with("enabled", "no"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::domain::{BackingImage, Mark};
    use uuid::Uuid;

    pub(in crate::domain) fn spec() -> DomainSpec {
        DomainSpec {
            name: "home-web".into(),
            uuid: Uuid::from_u128(0x0b2d_1b9e_5f0f_4e0b_8a4e_0d5f_1b9e_5f0f),
            mark: Mark {
                realm: "home".into(),
                vm: "web".into(),
                generation: 2,
                spec_digest: "blake3:0011".into(),
                operation: "01J00000000000000000000000".into(),
            },
            memory_mib: 512,
            vcpus: 2,
            virt_type: VirtType::Qemu,
            disks: vec![DiskSpec {
                path: "/vm/web & co.qcow2".into(),
                format: DiskFormat::Qcow2,
                backing_chain: vec![
                    BackingImage { path: "/vm/layer.qcow2".into(), format: DiskFormat::Qcow2 },
                    BackingImage { path: "/seeds/debian.raw".into(), format: DiskFormat::Raw },
                ],
                target: "vda".into(),
                serial: "root".into(),
                cache: DiskCache::None,
            }],
            nocloud: Some("/vm/web.nocloud".into()),
            network: Some(NetworkInterface {
                network: "loam".into(),
                mac: "52:54:00:12:34:56".parse().expect("a good address"),
            }),
            console_log: Some("/log/web.console".into()),
        }
    }

    /// The golden document is libvirt's to judge: `tests/real.rs` defines and starts documents made the same way.
    #[test]
    fn the_document_is_the_golden_one() {
        assert_eq!(spec().document(), include_str!("document.golden.xml").trim_end());
    }

    #[test]
    fn the_nocloud_disk_takes_the_first_free_name() {
        let mut spec = spec();
        spec.disks[0].target = "vdb".into();
        assert_eq!(spec.nocloud_target(), "vda");
    }

    #[test]
    fn a_machine_with_kvm_differs_only_in_its_processor() {
        let mut kvm = spec();
        kvm.virt_type = VirtType::Kvm;
        let expected = spec()
            .document()
            .replace("<domain type=\"qemu\">", "<domain type=\"kvm\">")
            .replace("mode=\"maximum\"", "mode=\"host-model\"");
        assert_eq!(kvm.document(), expected);
    }
}
