//! Our machine and our network in the words of `provisioner-libvirt`.

use std::net::Ipv4Addr;

use provisioner_libvirt::network::{NetworkSpec, Reach};
use provisioner_libvirt::{
    BackingImage, DiskFormat, DiskSpec, DomainSpec, MacAddress, Mark, NetworkCard, Uuid,
};
use sha2::{Digest, Sha256};

use super::Libvirt;
use crate::config::Network;
use crate::ports::{Disk, HypervisorError, Image, ImageFormat, Machine};

impl Libvirt {
    pub(super) fn spec(&self, machine: &Machine) -> Result<DomainSpec, HypervisorError> {
        let wrong = |what: String| HypervisorError::Failed(format!("machine {}: {what}", machine.name));
        let mac: MacAddress = machine.mac.parse().map_err(|error| wrong(format!("{error}")))?;
        let mib = machine.ram_size.0 >> 20;
        Ok(DomainSpec {
            name: machine.name.clone(),
            uuid: uuid_of(&machine.uuid)?,
            mark: Mark {
                org: machine.mark.realm.clone(),
                vm: machine.mark.vm.clone(),
                generation: machine.mark.generation,
                spec_digest: spec_digest(machine),
                operation: machine.mark.operation.clone(),
            },
            memory_mib: u32::try_from(mib).map_err(|_| wrong(format!("{mib} MiB of memory are too much")))?,
            vcpus: machine.cpu_count,
            virt_type: self.virt_type,
            disks: machine.disks.iter().map(|disk| self.disk_spec(disk)).collect(),
            nocloud: Some(machine.nocloud.clone()),
            network: Some(NetworkCard { network: self.network.name.clone(), mac }),
            console_log: Some(machine.console_log.clone()),
        })
    }

    fn disk_spec(&self, disk: &Disk) -> DiskSpec {
        let backing =
            |image: &Image| BackingImage { path: image.path.clone(), format: format_of(image.format) };
        DiskSpec {
            path: disk.image.path.clone(),
            format: format_of(disk.image.format),
            backing: disk.base.iter().map(backing).collect(),
            target: disk.name.to_string(),
            // QEMU cuts it at twenty bytes.
            serial: disk.name.as_str().chars().take(20).collect(),
            cache: self.cache,
        }
    }
}

/// What a machine is made from, but for the operation that made it.
fn spec_digest(machine: &Machine) -> String {
    let mut plain = machine.clone();
    plain.mark.operation = String::new();
    let text = serde_json::to_vec(&plain).expect("a machine is plain data");
    format!("sha256:{}", hex::encode(Sha256::digest(text)))
}

fn format_of(format: ImageFormat) -> DiskFormat {
    match format {
        ImageFormat::Qcow2 => DiskFormat::Qcow2,
        ImageFormat::Raw => DiskFormat::Raw,
    }
}

pub(super) fn uuid_of(text: &str) -> Result<Uuid, HypervisorError> {
    Uuid::parse_str(text).map_err(|error| HypervisorError::Failed(format!("{text:?} is not a UUID: {error}")))
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
        dhcp: (Ipv4Addr::from(first), Ipv4Addr::from(last)),
        reach: Reach::ServiceState,
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
        assert_eq!(spec.dhcp, (Ipv4Addr::new(10, 88, 0, 2), Ipv4Addr::new(10, 88, 0, 254)));
    }

    #[test]
    fn a_network_without_room_is_refused_by_the_name_of_its_key() {
        for (address, prefix) in [("10.88.0.1", 29), ("10.88.0.0", 24), ("10.88.0.254", 24)] {
            let refused = network(address, prefix).expect_err("no room");
            assert!(refused.starts_with("provisioner.network."), "{refused}");
        }
    }
}
