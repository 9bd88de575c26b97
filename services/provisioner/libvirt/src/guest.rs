//! Calls about the guest inside a domain: its address, its agent, its file systems.
//!
//! A guest may lie or hang: every call has a timeout of its own inside libvirt, shorter than the deadline of the call,
//! so that a guest that does not answer costs an error and not a connection.

use std::net::IpAddr;
use std::time::Duration;

use uuid::Uuid;
use virt::sys;

use crate::connection::Connection;
use crate::deadline::CallClass;
use crate::domain::MacAddress;
use crate::error::Error;
use crate::raw::{self, InterfaceAddresses};

/// How long libvirt waits for the agent's answer to a query.
const AGENT_TIMEOUT_SECONDS: i32 = 5;
/// Freezing flushes all that the guest holds in memory; a busy disk needs a while. Below the class's deadline.
const FREEZE_TIMEOUT_SECONDS: i32 = 30;

impl Connection {
    /// The address of a running domain's interface: from its DHCP lease, or else from its agent. `None` while it has
    /// none.
    ///
    /// # Errors
    /// [`Error::NotFound`] without such a domain, [`Error::WrongState`] when it does not run.
    pub fn address(&mut self, uuid: Uuid, mac: MacAddress) -> Result<Option<IpAddr>, Error> {
        let attempt = format!("get the address of domain {uuid}");
        let leased = self.with_domain(CallClass::Query, &attempt, uuid, |_, domain| {
            raw::interfaces(domain, sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE)
        })?;
        if let Some(address) = address_of(&leased, mac) {
            return Ok(Some(address));
        }
        let asked = self.with_domain(CallClass::Agent, &attempt, uuid, |_, domain| {
            raw::set_agent_timeout(domain, AGENT_TIMEOUT_SECONDS)?;
            raw::interfaces(domain, sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT)
        });
        match asked {
            Ok(interfaces) => Ok(address_of(&interfaces, mac)),
            // The guest has not booted so far yet.
            Err(Error::AgentSilent { .. } | Error::Libvirt { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Checks that the agent answers.
    ///
    /// # Errors
    /// [`Error::AgentSilent`] while it does not; [`Error::NotFound`]; [`Error::WrongState`] when the domain does not
    /// run.
    pub fn agent_ping(&mut self, uuid: Uuid) -> Result<(), Error> {
        self.agent_command(uuid, r#"{"execute":"guest-ping"}"#, Duration::from_secs(2)).map(drop)
    }

    /// Sends the agent any of its commands, as JSON, and returns its answer. `within` is rounded up to whole seconds
    /// and kept below the class's deadline.
    ///
    /// # Errors
    /// [`Error::AgentSilent`]; [`Error::Libvirt`] with the agent's message when it refuses.
    pub fn agent_command(&mut self, uuid: Uuid, command: &str, within: Duration) -> Result<String, Error> {
        let longest = self.deadline(CallClass::Agent).saturating_sub(Duration::from_secs(1)).as_secs().max(1);
        let seconds = (within.as_secs_f64().ceil() as u64).clamp(1, longest);
        let seconds = i32::try_from(seconds).expect("a class's deadline is minutes at most");
        self.with_domain(
            CallClass::Agent,
            &format!("send a command to the agent of domain {uuid}"),
            uuid,
            |_, domain| domain.qemu_agent_command(command, seconds, 0),
        )
    }

    /// Flushes and freezes the guest's file systems: until [`Connection::thaw`] they do not change. Returns how many.
    ///
    /// # Errors
    /// [`Error::AgentSilent`]. After any error, thaw.
    pub fn freeze(&mut self, uuid: Uuid) -> Result<u32, Error> {
        self.with_domain(CallClass::Freeze, &format!("freeze domain {uuid}"), uuid, |_, domain| {
            raw::set_agent_timeout(domain, FREEZE_TIMEOUT_SECONDS)?;
            raw::freeze(domain)
        })
        .map(count)
    }

    /// Thaws the guest's file systems; a no-op for those that are not frozen. Returns how many were.
    ///
    /// # Errors
    /// [`Error::AgentSilent`]: then the guest may be frozen still, which a person should learn.
    pub fn thaw(&mut self, uuid: Uuid) -> Result<u32, Error> {
        self.with_domain(CallClass::Freeze, &format!("thaw domain {uuid}"), uuid, |_, domain| {
            raw::set_agent_timeout(domain, FREEZE_TIMEOUT_SECONDS)?;
            raw::thaw(domain)
        })
        .map(count)
    }
}

fn count(file_systems: i32) -> u32 {
    u32::try_from(file_systems).expect("a checked count is not negative")
}

/// The first usable address of an interface: IPv4 before IPv6, nothing that only its own link can reach.
fn address_of(interfaces: &[InterfaceAddresses], mac: MacAddress) -> Option<IpAddr> {
    let mac = mac.to_string();
    let mut addresses: Vec<IpAddr> = interfaces
        .iter()
        .filter(|interface| interface.mac.as_deref().is_some_and(|seen| seen.eq_ignore_ascii_case(&mac)))
        .flat_map(|interface| interface.addresses.iter().filter_map(|text| text.parse().ok()))
        .filter(|address| match address {
            IpAddr::V4(v4) => !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_unicast_link_local(),
        })
        .collect();
    addresses.sort_by_key(IpAddr::is_ipv6);
    addresses.first().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_the_interfaces_own_and_reachable_from_elsewhere() {
        let mac: MacAddress = "52:54:00:00:00:01".parse().expect("a good address");
        let interface = |mac: Option<&str>, addresses: &[&str]| InterfaceAddresses {
            mac: mac.map(str::to_owned),
            addresses: addresses.iter().map(|text| (*text).to_owned()).collect(),
        };
        let interfaces = [
            interface(None, &["127.0.0.1"]),
            interface(Some("52:54:00:00:00:02"), &["10.0.0.2"]),
            interface(
                Some("52:54:00:00:00:01".to_uppercase().as_str()),
                &["fe80::1", "fd00::1", "169.254.0.9", "10.0.0.1"],
            ),
        ];
        assert_eq!(address_of(&interfaces, mac), "10.0.0.1".parse().ok());
        assert_eq!(address_of(&interfaces[..2], mac), None);
    }
}
