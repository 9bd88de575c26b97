//! What the proxy knows of each VM, and the domains that it claims.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use contract::provisioner::{DomainRoute, Vm, VmState};
use contract::{HostName, Timestamp, VmName, VmUuid};
use serde::{Deserialize, Serialize};

use crate::route::{DomainClaim, UpstreamState, VmDownReason};

/// A starting VM is ready within seconds.
const RETRY_STARTING: Duration = Duration::from_secs(5);
/// A VM that is stopped or missing needs a command first.
const RETRY_DOWN: Duration = Duration::from_secs(60);

/// A VM as the proxy sees it. Stored, so that routes survive a restart without the provisioner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamVm {
    /// The VM's UUID.
    pub uuid: VmUuid,
    /// The VM's name.
    pub name: VmName,
    /// The host that it is on.
    pub host: HostName,
    /// The domains it claims, and the port for each.
    pub domains: Vec<DomainRoute>,
    /// The last known state.
    pub state: VmState,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// When it was created; the older VM keeps a domain that two claim.
    pub created: Timestamp,
}

impl From<Vm> for UpstreamVm {
    fn from(vm: Vm) -> Self {
        UpstreamVm {
            uuid: vm.uuid,
            name: vm.definition.name,
            host: vm.host,
            domains: vm.definition.domains,
            state: vm.state,
            address: vm.address,
            created: vm.created,
        }
    }
}

impl UpstreamVm {
    /// The VM, in the state and at the address in which it was `known` where its own state is not known now: while the
    /// hypervisor or the whole host does not answer its VMs may run on, and most requests still arrive.
    pub fn or_as_known(self, known: Option<&UpstreamVm>) -> UpstreamVm {
        match known {
            Some(known) if matches!(self.state, VmState::Unknown | VmState::Unreachable) => {
                UpstreamVm { state: known.state, address: known.address, ..self }
            }
            _ => self,
        }
    }
}

/// Which VMs a proxy reaches: their network is the host's own, and leads nowhere else unless a person routes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those of every host.
    EveryHost,
    /// Those of this host.
    OneHost(HostName),
}

impl Reach {
    fn includes(&self, vm: &UpstreamVm) -> bool {
        match self {
            Reach::EveryHost => true,
            Reach::OneHost(host) => *host == vm.host,
        }
    }
}

/// The claims of all VMs, the oldest VM first.
pub fn claims<'a>(vms: impl IntoIterator<Item = &'a UpstreamVm>, reach: &Reach) -> Vec<DomainClaim> {
    let mut vms: Vec<&UpstreamVm> = vms.into_iter().collect();
    vms.sort_by_key(|vm| (vm.created, vm.name.clone()));
    vms.into_iter().flat_map(|vm| claims_of(vm, reach)).collect()
}

/// One claim for each port, since each port is a target of its own.
fn claims_of(vm: &UpstreamVm, reach: &Reach) -> Vec<DomainClaim> {
    let mut ports: Vec<u16> = vm.domains.iter().map(|route| route.port).collect();
    ports.sort_unstable();
    ports.dedup();
    let of_port = |port: u16| DomainClaim {
        vm: vm.name.clone(),
        domains: vm.domains.iter().filter(|r| r.port == port).map(|r| r.domain.clone()).collect(),
        target: if reach.includes(vm) { target(vm, port) } else { ON_ANOTHER_HOST },
    };
    ports.into_iter().map(of_port).collect()
}

const ON_ANOTHER_HOST: UpstreamState =
    UpstreamState::Down { reason: VmDownReason::OnAnotherHost, retry_after: RETRY_DOWN };

fn target(vm: &UpstreamVm, port: u16) -> UpstreamState {
    let down = |reason, retry_after| UpstreamState::Down { reason, retry_after };
    match (vm.state, vm.address) {
        // A state of a later provisioner may be one in which the VM answers.
        (VmState::Ready | VmState::Unknown, Some(address)) => {
            UpstreamState::Up(SocketAddr::new(address, port))
        }
        (VmState::Creating | VmState::Starting | VmState::Ready | VmState::Unknown, _) => {
            down(VmDownReason::Starting, RETRY_STARTING)
        }
        (VmState::Stopping | VmState::Stopped | VmState::Removing, _) => {
            down(VmDownReason::Stopped, RETRY_DOWN)
        }
        (VmState::Paused, _) => down(VmDownReason::Paused, RETRY_STARTING),
        (VmState::Missing | VmState::Unreachable, _) => down(VmDownReason::Failed, RETRY_DOWN),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(name: &str, created: i64, state: VmState) -> UpstreamVm {
        let route = |domain: &str, port| DomainRoute { domain: domain.parse().expect("valid"), port };
        UpstreamVm {
            uuid: "0b2d1b9e-5f0f-4e0b-8a4e-0d5f1b9e5f0f".parse().expect("valid"),
            name: name.parse().expect("valid"),
            host: "h1".parse().expect("valid"),
            domains: vec![route("a.example", 80), route("b.example", 8080), route("c.example", 80)],
            state,
            address: Some("10.88.0.5".parse().expect("valid")),
            created: Timestamp::from_timestamp(created, 0).expect("valid"),
        }
    }

    #[test]
    fn each_port_is_a_target_and_the_older_vm_comes_first() {
        let (young, old) = (vm("young", 2, VmState::Ready), vm("old", 1, VmState::Ready));
        let claims = claims([&young, &old], &Reach::EveryHost);
        let shown: Vec<String> =
            claims.iter().map(|c| format!("{} {} {}", c.vm, c.domains.len(), c.target)).collect();
        assert_eq!(
            shown,
            ["old 2 10.88.0.5:80", "old 1 10.88.0.5:8080", "young 2 10.88.0.5:80", "young 1 10.88.0.5:8080"]
        );
    }

    #[test]
    fn a_proxy_that_reaches_its_own_host_only_says_so_of_a_vm_elsewhere() {
        let web = vm("web", 1, VmState::Ready);
        let shown = |host: &str| {
            let reach = Reach::OneHost(host.parse().expect("valid"));
            claims([&web], &reach).iter().map(|claim| claim.target.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(shown("h1"), ["10.88.0.5:80", "10.88.0.5:8080"]);
        assert_eq!(shown("h2"), ["on another host"; 2]);
    }

    #[test]
    fn a_vm_whose_state_nobody_knows_is_routed_as_before() {
        let ready = vm("web", 1, VmState::Ready);
        for state in [VmState::Unknown, VmState::Unreachable] {
            let unknown = UpstreamVm { address: None, ..vm("web", 1, state) };
            assert_eq!(unknown.clone().or_as_known(Some(&ready)), ready);
            assert_eq!(unknown.clone().or_as_known(None), unknown);
        }
        let stopped = vm("web", 1, VmState::Stopped);
        assert_eq!(stopped.clone().or_as_known(Some(&ready)), stopped);
    }

    #[test]
    fn only_a_ready_vm_with_an_address_gets_requests() {
        for state in
            [VmState::Creating, VmState::Starting, VmState::Stopping, VmState::Stopped, VmState::Missing]
        {
            assert!(matches!(target(&vm("web", 1, state), 80), UpstreamState::Down { .. }), "{state:?}");
        }
        for state in [VmState::Ready, VmState::Unknown] {
            let without_address = UpstreamVm { address: None, ..vm("web", 1, state) };
            let target = target(&without_address, 80);
            assert!(
                matches!(target, UpstreamState::Down { reason: VmDownReason::Starting, .. }),
                "{state:?}"
            );
        }
    }
}
