//! Hosts: where VMs run, and what becomes of the VMs of a host that is gone.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Vm;
use crate::message::{MessageOwner, NeverRefused, Timestamp, messages};
use crate::{ByteCount, HostName, Service, VmName, VmUuid};

messages! { MessageOwner::One(Service::Provisioner) =>
    request ListHosts { "list_hosts", from [People, Service(Backup)], reply Vec<Host>, refusal NeverRefused }
    request RemoveHost { "remove_host", from [People], reply Host, refusal RemoveHostRefused }
    request ForgetVm { "forget_vm", from [People], reply ForgottenVm, refusal ForgetVmRefused }
}

/// Lists the hosts, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ListHosts {}

/// A host, as its provisioner last reported it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// Its name.
    pub name: HostName,
    /// Whether it reports.
    pub state: HostState,
    /// When it reported last.
    pub last_seen: Timestamp,
    /// Its processors; absent while its hypervisor has not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Its memory, in bytes; absent while its hypervisor has not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteCount>,
    /// The memory of the VMs that run there or should run, in bytes.
    pub promised_memory: ByteCount,
    /// Free space for disks, in bytes; absent while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_disk: Option<ByteCount>,
    /// How many VMs are on it.
    pub vms: u32,
    /// VMs in its hypervisor that carry Loam's mark and have no row: their rows were lost. They are left alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unclaimed: Vec<UnclaimedVm>,
    /// What runs them: `libvirt`, or `simulated` where no VM really exists.
    pub hypervisor: String,
    /// The version of its provisioner.
    pub version: String,
}

/// A VM that Loam made and knows nothing more of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnclaimedVm {
    /// Its name, by its mark.
    pub name: VmName,
    /// Its UUID.
    pub uuid: VmUuid,
}

/// Whether a host reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// It does.
    Ready,
    /// It has not for a while: it is off, or cut off from the bus. Its VMs may run.
    Unreachable,
    /// A person has removed it. Its VMs are listed until they are forgotten.
    Removed,
    /// A state of a later version.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for HostState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            HostState::Ready => "ready",
            HostState::Unreachable => "unreachable",
            HostState::Removed => "removed",
            HostState::Unknown => "unknown",
        })
    }
}

/// Why a command that names no host, or a wrong one, is carried out on none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum HostRefused {
    /// There are several, and none was named.
    #[error("there are several hosts: {}; name one with `--host`", list(hosts))]
    Required {
        /// Those it may be.
        hosts: Vec<HostName>,
    },
    /// There is no such host, or it has been removed.
    #[error("there is no host {host}; there are {}", list(hosts))]
    UnknownHost {
        /// The host that was named.
        host: HostName,
        /// Those there are.
        hosts: Vec<HostName>,
    },
}

/// The host that a command is for: the one that it names, or the only one of those there are. `here` is the host of the
/// service that decides: it is there, even if it has not reported yet.
///
/// # Errors
/// [`HostRefused`] where it names none of several, or one that is not among them.
pub fn choose_host(
    named: Option<&HostName>,
    here: &HostName,
    mut hosts: Vec<HostName>,
) -> Result<HostName, HostRefused> {
    if !hosts.contains(here) {
        hosts.push(here.clone());
    }
    hosts.sort();
    match (named, hosts.as_slice()) {
        (Some(host), _) if hosts.contains(host) => Ok(host.clone()),
        (Some(host), _) => Err(HostRefused::UnknownHost { host: host.clone(), hosts }),
        (None, [only]) => Ok(only.clone()),
        (None, _) => Err(HostRefused::Required { hosts }),
    }
}

fn list(hosts: &[HostName]) -> String {
    hosts.iter().map(HostName::as_str).collect::<Vec<_>>().join(", ")
}

/// Marks a host that will not return as removed. Its VMs stay listed as unreachable until they are forgotten. A host that
/// reports again is no longer removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RemoveHost {
    /// The host.
    pub host: HostName,
}

/// Why a host is not removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum RemoveHostRefused {
    /// There is no such host.
    #[error("there is no host {0}; `loam host list` lists them")]
    UnknownHost(HostName),
    /// It reports.
    #[error("host {0} reports: stop its provisioner first")]
    Reporting(HostName),
}

/// Forgets a VM of a removed host: its name is free again. Its disks, if they exist somewhere, are not touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForgetVm {
    /// The host that it was on.
    pub host: HostName,
    /// The VM's name.
    pub vm: VmName,
}

/// What was forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ForgottenVm {
    /// The VM, as it was listed.
    pub vm: Vm,
}

/// Why a VM is not forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum ForgetVmRefused {
    /// That host has no such VM.
    #[error("there is no VM {host}/{vm}; `loam vm list` lists them")]
    UnknownVm {
        /// The host.
        host: HostName,
        /// The VM.
        vm: VmName,
    },
    /// The host is not removed: its VM may be running.
    #[error("host {0} is not removed; `loam host mark-removed {0}` comes first")]
    NotRemoved(HostName),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_for_the_host_that_it_names_or_for_the_only_one() {
        let host = |name: &str| HostName::new(name).expect("a good name");
        let (h1, h2) = (host("h1"), host("h2"));
        assert_eq!(choose_host(None, &h1, vec![]), Ok(h1.clone()));
        assert_eq!(choose_host(None, &h1, vec![h1.clone()]), Ok(h1.clone()));
        assert_eq!(choose_host(Some(&h2), &h1, vec![h2.clone()]), Ok(h2.clone()));
        let refused = choose_host(None, &h1, vec![h2.clone()]).expect_err("which?").to_string();
        assert_eq!(refused, "there are several hosts: h1, h2; name one with `--host`");
        let refused = choose_host(Some(&host("h3")), &h1, vec![h2]).expect_err("no such host").to_string();
        assert_eq!(refused, "there is no host h3; there are h1, h2");
    }
}
