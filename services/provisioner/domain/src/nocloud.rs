//! The NoCloud documents of a VM: its name, its network, and the SSH key that may log in, as cloud-init reads them.

use crate::vm::VmRecord;

/// The three documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoCloudDocuments {
    /// `user-data`: host name and SSH key.
    pub user_data: String,
    /// `meta-data`: instance id and host name.
    pub meta_data: String,
    /// `network-config`: DHCP on its only card.
    pub network_config: String,
}

/// Writes the documents. `authorized_key` is our public key, in one line as OpenSSH writes it.
///
/// The key is for the image's own user and for `root`: scripts run as root, and images differ in who may become it.
/// The instance id is the VM's UUID and generation, so that a restored copy gets SSH host keys of its own. Its address
/// is asked for by its MAC address: two copies of one guest have one machine id at first, and a DHCP server would give
/// both the same address for it.
pub fn documents(vm: &VmRecord, authorized_key: &str) -> NoCloudDocuments {
    let (name, mac, uuid) = (vm.name(), &vm.identity.mac, &vm.identity.uuid);
    NoCloudDocuments {
        user_data: format!(
            "#cloud-config\n\
             hostname: {name}\n\
             manage_etc_hosts: localhost\n\
             disable_root: false\n\
             ssh_pwauth: false\n\
             ssh_authorized_keys:\n  - \"{authorized_key}\"\n"
        ),
        meta_data: format!("instance-id: {uuid}-{}\nlocal-hostname: {name}\n", vm.cloud_init_generation),
        network_config: format!(
            "version: 2\nethernets:\n  eth0:\n    match:\n      macaddress: \"{mac}\"\n    set-name: eth0\n    dhcp4: true\n    dhcp-identifier: mac\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::tests::new_record;

    #[test]
    fn a_dhcp_server_gives_a_vm_and_its_copy_two_addresses_from_the_first_boot_on() {
        let network = documents(&new_record(), "ssh-ed25519 AAAA").network_config;
        assert!(network.contains("dhcp-identifier: mac\n"), "{network}");
        assert!(network.contains("macaddress: \"52:54:00:"), "{network}");
    }
}
