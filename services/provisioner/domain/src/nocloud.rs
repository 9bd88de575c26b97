//! The texts by which a machine learns who it is and whom to let in, in the form of cloud-init's NoCloud source.

use crate::vm::VmRecord;

/// The three documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documents {
    /// Whom to let in.
    pub user_data: String,
    /// Who it is.
    pub meta_data: String,
    /// How it gets its address.
    pub network_config: String,
}

/// Writes the documents. `authorized_key` is our public key, in one line as OpenSSH writes it.
///
/// The key is for the image's own user and for `root`: scripts run as root, and images differ in who may become it.
/// The instance's name changes with every generation, so that a restored copy gets host keys of its own.
pub fn documents(vm: &VmRecord, authorized_key: &str) -> Documents {
    let (name, mac, uuid) = (vm.name(), &vm.identity.mac, &vm.identity.uuid);
    Documents {
        user_data: format!(
            "#cloud-config\n\
             hostname: {name}\n\
             manage_etc_hosts: localhost\n\
             disable_root: false\n\
             ssh_pwauth: false\n\
             ssh_authorized_keys:\n  - \"{authorized_key}\"\n"
        ),
        meta_data: format!("instance-id: {uuid}-{}\nlocal-hostname: {name}\n", vm.generation),
        network_config: format!(
            "version: 2\nethernets:\n  eth0:\n    match:\n      macaddress: \"{mac}\"\n    set-name: eth0\n    dhcp4: true\n"
        ),
    }
}
