//! What the proxy knows of the machines, and the claims that follow from it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use contract::provisioner::{DomainRoute, Vm, VmState};
use contract::{Timestamp, VmName};
use serde::{Deserialize, Serialize};

use crate::route::{Claim, DownReason, Target};

/// A machine that starts answers within seconds.
const SOON: Duration = Duration::from_secs(5);
/// A machine that somebody stopped comes back when somebody starts it.
const LATER: Duration = Duration::from_secs(60);

/// A machine as far as traffic is concerned; also what is remembered over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownVm {
    /// Its name.
    pub name: VmName,
    /// Its domains and their ports.
    pub domains: Vec<DomainRoute>,
    /// How it was last heard of.
    pub state: VmState,
    /// Its address, where it has one.
    pub address: Option<IpAddr>,
    /// When it was made; the elder keeps a domain that two claim.
    pub created: Timestamp,
}

impl From<Vm> for KnownVm {
    fn from(vm: Vm) -> Self {
        KnownVm {
            name: vm.definition.name,
            domains: vm.definition.domains,
            state: vm.state,
            // The provisioner tells addresses as text; one that is none is as good as none.
            address: vm.address.and_then(|text| text.parse().ok()),
            created: vm.created,
        }
    }
}

/// The claims of all machines, the eldest first.
pub fn claims<'a>(machines: impl IntoIterator<Item = &'a KnownVm>) -> Vec<Claim> {
    let mut machines: Vec<&KnownVm> = machines.into_iter().collect();
    machines.sort_by_key(|machine| (machine.created, machine.name.clone()));
    machines.into_iter().flat_map(claims_of).collect()
}

/// One claim a port, since each port is a target of its own.
fn claims_of(machine: &KnownVm) -> Vec<Claim> {
    let mut ports: Vec<u16> = machine.domains.iter().map(|route| route.port).collect();
    ports.sort_unstable();
    ports.dedup();
    let of_port = |port: u16| Claim {
        owner: machine.name.clone(),
        domains: machine.domains.iter().filter(|r| r.port == port).map(|r| r.domain.clone()).collect(),
        target: target(machine, port),
    };
    ports.into_iter().map(of_port).collect()
}

fn target(machine: &KnownVm, port: u16) -> Target {
    let down = |why, retry_after| Target::Down { why, retry_after };
    match (machine.state, machine.address) {
        (VmState::Ready, Some(address)) => Target::Up(SocketAddr::new(address, port)),
        (VmState::Creating | VmState::Starting | VmState::Ready, _) => down(DownReason::Starting, SOON),
        (VmState::Stopping | VmState::Stopped | VmState::Removing, _) => down(DownReason::Stopped, LATER),
        (VmState::Missing, _) => down(DownReason::Failed, LATER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str, created: i64, state: VmState) -> KnownVm {
        let route = |domain: &str, port| DomainRoute { domain: domain.parse().expect("valid"), port };
        KnownVm {
            name: name.parse().expect("valid"),
            domains: vec![route("a.example", 80), route("b.example", 8080), route("c.example", 80)],
            state,
            address: Some("10.88.0.5".parse().expect("valid")),
            created: Timestamp::from_timestamp(created, 0).expect("valid"),
        }
    }

    #[test]
    fn each_port_is_a_target_and_the_elder_comes_first() {
        let (young, old) = (machine("young", 2, VmState::Ready), machine("old", 1, VmState::Ready));
        let claims = claims([&young, &old]);
        let shown: Vec<String> =
            claims.iter().map(|c| format!("{} {} {}", c.owner, c.domains.len(), c.target)).collect();
        assert_eq!(
            shown,
            ["old 2 10.88.0.5:80", "old 1 10.88.0.5:8080", "young 2 10.88.0.5:80", "young 1 10.88.0.5:8080"]
        );
    }

    #[test]
    fn only_a_ready_machine_with_an_address_gets_traffic() {
        for state in
            [VmState::Creating, VmState::Starting, VmState::Stopping, VmState::Stopped, VmState::Missing]
        {
            assert!(matches!(target(&machine("web", 1, state), 80), Target::Down { .. }), "{state:?}");
        }
        let nowhere = KnownVm { address: None, ..machine("web", 1, VmState::Ready) };
        assert!(matches!(target(&nowhere, 80), Target::Down { why: DownReason::Starting, .. }));
    }
}
