//! Our VM and our network as `provisioner-libvirt` defines them, and its domains as ours.

use std::net::Ipv4Addr;

use contract::{MacAddress, OperationId, Realm, VmName, VmUuid};
use provisioner_libvirt::lifecycle::MarkedDomain;
use provisioner_libvirt::network::{Forward, NetworkSpec};
use provisioner_libvirt::{BackingImage, DiskFormat, DiskSpec, DomainSpec, Mark, NetworkInterface, Uuid};
use sha2::{Digest, Sha256};

use super::LibvirtHypervisor;
use super::power::power_of;
use crate::config::Network;
use crate::ports::{
    Disk, FoundDisk, HypervisorError, HypervisorErrorKind, Image, ImageFormat, MarkedVm, VmMark, VmSpec,
};

impl LibvirtHypervisor {
    pub(super) fn spec(&self, spec: &VmSpec) -> Result<DomainSpec, HypervisorError> {
        let mib = spec.ram_size.0 >> 20;
        let memory_mib = u32::try_from(mib).map_err(|error| {
            HypervisorError::new(
                HypervisorErrorKind::Failed,
                format!("give VM {} {mib} MiB", spec.mark.vm),
                error,
            )
        })?;
        Ok(DomainSpec {
            name: spec.name.clone(),
            uuid: domain_uuid(&spec.uuid),
            mark: Mark {
                realm: spec.mark.realm.to_string(),
                vm: spec.mark.vm.to_string(),
                generation: spec.mark.cloud_init_generation,
                spec_digest: spec_digest(spec),
                operation: spec.mark.operation.to_string(),
            },
            memory_mib,
            vcpus: spec.cpu_count,
            virt_type: self.virt_type,
            disks: spec.disks.iter().map(|disk| self.disk_spec(disk)).collect(),
            nocloud: Some(spec.nocloud_volume.clone()),
            network: Some(NetworkInterface {
                network: self.network.name.clone(),
                mac: mac_address(&spec.mac),
            }),
            console_log: Some(spec.console_log.clone()),
        })
    }

    fn disk_spec(&self, disk: &Disk) -> DiskSpec {
        let backing =
            |image: &Image| BackingImage { path: image.path.clone(), format: format_of(image.format) };
        DiskSpec {
            path: disk.image.path.clone(),
            format: format_of(disk.image.format),
            backing_chain: disk.base.iter().map(backing).collect(),
            target: disk.name.to_string(),
            // QEMU cuts it at twenty bytes.
            serial: disk.name.as_str().chars().take(20).collect(),
            cache: self.cache,
        }
    }
}

/// The digest of a VM's definition, whichever operation defines it.
fn spec_digest(spec: &VmSpec) -> String {
    let mut plain = serde_json::to_value(spec).expect("a definition is plain data");
    plain["mark"]["operation"] = "".into();
    let text = serde_json::to_vec(&plain).expect("a definition is plain data");
    format!("sha256:{}", hex::encode(Sha256::digest(text)))
}

fn format_of(format: ImageFormat) -> DiskFormat {
    match format {
        ImageFormat::Qcow2 => DiskFormat::Qcow2,
        ImageFormat::Raw => DiskFormat::Raw,
    }
}

/// A domain of our realm. One whose mark holds no valid names is not ours to touch.
pub(super) fn marked_vm(found: MarkedDomain, realm: &Realm) -> Option<MarkedVm> {
    let mark = found.mark;
    if mark.realm != realm.to_string() {
        return None;
    }
    let names = VmName::new(mark.vm).and_then(|vm| Ok((vm, OperationId::new(mark.operation)?)));
    match names {
        Ok((vm, operation)) => Some(MarkedVm {
            uuid: VmUuid::new(found.uuid.to_string()).expect("libvirt's UUIDs are UUIDs"),
            power: power_of(Some(found.power)),
            mark: VmMark { realm: realm.clone(), vm, cloud_init_generation: mark.generation, operation },
            disks: found.disks.into_iter().map(found_disk).collect(),
        }),
        Err(error) => {
            tracing::error!(domain = found.name, uuid = %found.uuid, %error, "a domain's mark is damaged; it is left alone");
            None
        }
    }
}

pub(super) fn found_disk(disk: provisioner_libvirt::FoundDisk) -> FoundDisk {
    FoundDisk { name: disk.target, path: disk.source }
}

/// A VM's UUID as libvirt's.
pub(super) fn domain_uuid(uuid: &VmUuid) -> Uuid {
    Uuid::parse_str(uuid.as_str()).expect("a VmUuid is a UUID")
}

/// A MAC address as libvirt's.
pub(super) fn mac_address(mac: &MacAddress) -> provisioner_libvirt::MacAddress {
    mac.as_str().parse().expect("a MacAddress is a MAC address")
}

/// The whole network, and DHCP for what lies above the host's own address.
pub(super) fn network_spec(wanted: &Network) -> Result<NetworkSpec, String> {
    if !(16..=28).contains(&wanted.prefix) {
        return Err(format!("provisioner.network.prefix: must be from 16 to 28, not {}", wanted.prefix));
    }
    if wanted.bridge.is_empty() || wanted.bridge.len() > 15 {
        return Err("provisioner.network.bridge: must have 1 to 15 characters".into());
    }
    let mask = u32::MAX << (32 - wanted.prefix);
    let host = u32::from(wanted.address);
    let (first, last) = (host + 1, (host | !mask) - 1);
    let room = last.saturating_sub(first);
    if host & !mask == 0 || room < 4 {
        return Err(format!(
            "provisioner.network.address: {} leaves no room above it for guests; take the network's first address",
            wanted.address
        ));
    }
    Ok(NetworkSpec {
        name: wanted.name.clone(),
        bridge: wanted.bridge.clone(),
        host_address: wanted.address,
        prefix_length: wanted.prefix,
        dhcp_range: (Ipv4Addr::from(first), Ipv4Addr::from(last)),
        forward: Forward::Nat,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(address: &str, prefix: u8) -> Result<NetworkSpec, String> {
        network_spec(&Network {
            name: "loam".into(),
            bridge: "loam0".into(),
            address: address.parse().expect("an address"),
            prefix,
        })
    }

    #[test]
    fn guests_get_the_addresses_above_the_hosts_own() {
        let spec = network("10.88.0.1", 24).expect("room");
        assert_eq!(spec.dhcp_range, (Ipv4Addr::new(10, 88, 0, 2), Ipv4Addr::new(10, 88, 0, 254)));
    }

    #[test]
    fn a_network_without_room_is_refused_by_the_name_of_its_key() {
        for (address, prefix) in [("10.88.0.1", 29), ("10.88.0.0", 24), ("10.88.0.254", 24)] {
            let refused = network(address, prefix).expect_err("no room");
            assert!(refused.starts_with("provisioner.network."), "{refused}");
        }
    }
}
