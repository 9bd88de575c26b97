//! The hosts of an installation: what each reports of itself, and when it counts as unreachable.

use std::time::Duration;

use contract::provisioner::{Host, HostState, UnclaimedVm};
use contract::{ByteCount, HostName, NoPrevious, Stored, Timestamp};
use serde::{Deserialize, Serialize};

/// A host that has not reported for this long is unreachable: a few reports were lost, and a restart takes less. The
/// clocks of hosts have to agree within seconds.
pub const UNREACHABLE_AFTER: Duration = Duration::from_secs(45);

/// A row of the table `hosts`: what the provisioner of a host last reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// The host.
    pub name: HostName,
    /// When, by the host's clock.
    pub reported: Timestamp,
    /// Its processors; none while its hypervisor has not said.
    pub cpus: Option<u32>,
    /// Its memory; none while its hypervisor has not said.
    pub memory: Option<ByteCount>,
    /// The memory of the VMs that run there or should run.
    pub promised_memory: ByteCount,
    /// Free space for disks; none while it is not known.
    pub free_disk: Option<ByteCount>,
    /// How many VMs are on it.
    pub vms: u32,
    /// VMs that carry our mark and have no row, some of them where there are many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unclaimed: Vec<UnclaimedVm>,
    /// What runs them.
    pub hypervisor: String,
    /// Why it runs them without KVM.
    pub emulation_reason: Option<String>,
    /// The version of its provisioner.
    pub version: String,
    /// When a person removed it; the next report of the host takes that back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed: Option<Timestamp>,
}

impl Stored for HostRecord {
    const VERSION: u16 = 1;
    type Previous = NoPrevious;

    fn migrate(previous: NoPrevious) -> Self {
        match previous {}
    }
}

impl HostRecord {
    /// Whether it reports.
    pub fn state(&self, now: Timestamp) -> HostState {
        if self.removed.is_some() {
            HostState::Removed
        } else if now > self.reported + UNREACHABLE_AFTER {
            HostState::Unreachable
        } else {
            HostState::Ready
        }
    }

    /// The host as lists show it.
    pub fn view(&self, now: Timestamp) -> Host {
        Host {
            name: self.name.clone(),
            state: self.state(now),
            last_seen: self.reported,
            cpus: self.cpus,
            memory: self.memory,
            promised_memory: self.promised_memory,
            free_disk: self.free_disk,
            vms: self.vms,
            unclaimed: self.unclaimed.clone(),
            hypervisor: self.hypervisor.clone(),
            version: self.version.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        HostName::new(name).expect("a good name")
    }

    #[test]
    fn a_host_is_unreachable_when_it_has_not_reported_for_a_while_and_removed_when_a_person_says_so() {
        let mut record = HostRecord {
            name: host("h1"),
            reported: Timestamp::UNIX_EPOCH,
            cpus: Some(2),
            memory: None,
            promised_memory: ByteCount(0),
            free_disk: None,
            vms: 0,
            unclaimed: Vec::new(),
            hypervisor: "simulated".into(),
            emulation_reason: None,
            version: "1.0.0".into(),
            removed: None,
        };
        let later = Timestamp::UNIX_EPOCH + UNREACHABLE_AFTER;
        assert_eq!(record.state(later), HostState::Ready);
        assert_eq!(record.state(later + Duration::from_millis(1)), HostState::Unreachable);
        record.removed = Some(later);
        assert_eq!(record.view(later).state, HostState::Removed);
    }
}
