//! The guests' network: a bridge of libvirt's with DHCP, created when it is missing.
//!
//! ```text
//!   guest -- tap --+
//!   guest -- tap --+-- bridge, the host's address -- (NAT) -- elsewhere
//!                  |
//!                dnsmasq: addresses and names
//! ```
//!
//! Two settings cost or save whole seconds at every first boot: spanning tree is off (a new port would forward nothing
//! during the bridge's delay), and dnsmasq does not ping an address before it offers it (three seconds; its own table
//! of leases is the truth on a bridge that only it serves).

use std::net::Ipv4Addr;

use virt::error::Error as LibvirtError;
use virt::network::Network;

use crate::connection::{Connection, EnsureOutcome};
use crate::deadline::CallClass;
use crate::error::{Error, known};
use crate::xml::{Element, element};

/// A network as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkSpec {
    /// libvirt's name for it.
    pub name: String,
    /// The bridge's name on the host; at most 15 bytes.
    pub bridge: String,
    /// The host's own address on it, which is the guests' gateway and name server.
    pub host_address: Ipv4Addr,
    /// How many leading bits of it are the network's.
    pub prefix_length: u8,
    /// The first and the last address that DHCP gives away.
    pub dhcp_range: (Ipv4Addr, Ipv4Addr),
    /// Whether guests reach further than the host.
    pub forward: Forward,
}

/// How far a guest's packets go (libvirt's `<forward>`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Forward {
    /// To the host and to each other.
    Isolated,
    /// Anywhere, behind the host's address.
    Nat,
}

impl NetworkSpec {
    /// The document that [`Connection::ensure_network`] sends.
    pub fn document(&self) -> String {
        let forward = match self.forward {
            Forward::Isolated => None,
            Forward::Nat => Some(element("forward").with("mode", "nat")),
        };
        element("network")
            .with("xmlns:dnsmasq", "http://libvirt.org/schemas/network/dnsmasq/1.0")
            .child(element("name").holding(&self.name))
            .children(forward)
            .child(element("bridge").with("name", &self.bridge).with("stp", "off").with("delay", "0"))
            .child(
                element("ip").with("address", self.host_address).with("prefix", self.prefix_length).child(
                    element("dhcp").child(
                        element("range").with("start", self.dhcp_range.0).with("end", self.dhcp_range.1),
                    ),
                ),
            )
            .child(element("dnsmasq:options").child(element("dnsmasq:option").with("value", "no-ping")))
            .render()
    }

    fn summary(&self) -> String {
        format!("bridge {} with {}/{}", self.bridge, self.host_address, self.prefix_length)
    }
}

impl Connection {
    /// Creates the network where it is missing, and starts it where it is stopped.
    ///
    /// # Errors
    /// [`Error::NetworkDiffers`] when one of that name has another bridge or address: it may belong to others, so it is
    /// left alone. [`Error::Libvirt`] when the addresses are in use elsewhere on this host.
    pub fn ensure_network(&mut self, spec: &NetworkSpec) -> Result<EnsureOutcome, Error> {
        let attempt = format!("make network {}", spec.name);
        let document = spec.document();
        let (change, found) = self.call(CallClass::Network, &attempt, |connect| {
            let network = match known(connect.lookup_network_by_name(&spec.name))? {
                Some(network) => network,
                None => match connect.define_network_xml(&document) {
                    Ok(network) => network,
                    // Another caller was faster, between our two calls.
                    Err(error) => known(connect.lookup_network_by_name(&spec.name))?.ok_or(error)?,
                },
            };
            let found = network.xml_desc(0)?;
            if summary_of(&found).is_ok_and(|summary| summary != spec.summary()) {
                return Ok((EnsureOutcome::AlreadyInPlace, found));
            }
            Ok((bring_up(&network)?, found))
        })?;
        let found = summary_of(&found).map_err(|reason| Error::MalformedReply { attempt, reason })?;
        if found == spec.summary() {
            Ok(change)
        } else {
            Err(Error::NetworkDiffers { name: spec.name.clone(), found, wanted: spec.summary() })
        }
    }

    /// Stops the network and removes its definition. Guests on it lose their connection.
    ///
    /// # Errors
    /// What any call may meet.
    pub fn remove_network(&mut self, name: &str) -> Result<EnsureOutcome, Error> {
        self.call(CallClass::Network, &format!("remove network {name}"), |connect| {
            let Some(network) = known(connect.lookup_network_by_name(name))? else {
                return Ok(EnsureOutcome::AlreadyInPlace);
            };
            if network.is_active()? {
                network.destroy()?;
            }
            network.undefine().map(|()| EnsureOutcome::Changed)
        })
    }
}

fn bring_up(network: &Network) -> Result<EnsureOutcome, LibvirtError> {
    if network.is_active()? {
        return Ok(EnsureOutcome::AlreadyInPlace);
    }
    match network.create() {
        // Another caller was faster, between our two calls.
        Err(_) if network.is_active()? => Ok(EnsureOutcome::AlreadyInPlace),
        created => created.map(|()| EnsureOutcome::Changed),
    }
}

/// What of a network must be as we want it. libvirt may give the mask back in either form.
fn summary_of(document: &str) -> Result<String, String> {
    let network = Element::read(document)?;
    let attribute = |name: &'static str, key| network.find(&[name]).and_then(|found| found.attribute(key));
    let prefix = match (attribute("ip", "prefix"), attribute("ip", "netmask")) {
        (Some(prefix), _) => prefix.to_owned(),
        (None, Some(mask)) => {
            let mask: Ipv4Addr = mask.parse().map_err(|_| format!("{mask} is no mask"))?;
            u32::from(mask).leading_ones().to_string()
        }
        (None, None) => "?".to_owned(),
    };
    let bridge = attribute("bridge", "name").unwrap_or("none");
    let address = attribute("ip", "address").unwrap_or("no address");
    Ok(format!("bridge {bridge} with {address}/{prefix}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> NetworkSpec {
        NetworkSpec {
            name: "loam".into(),
            bridge: "loam0".into(),
            host_address: Ipv4Addr::new(10, 105, 0, 1),
            prefix_length: 24,
            dhcp_range: (Ipv4Addr::new(10, 105, 0, 10), Ipv4Addr::new(10, 105, 0, 250)),
            forward: Forward::Nat,
        }
    }

    #[test]
    fn a_network_is_known_again_whatever_form_its_mask_has() {
        assert_eq!(summary_of(&spec().document()), Ok(spec().summary()));
        let masked = spec().document().replace("prefix=\"24\"", "netmask=\"255.255.255.0\"");
        assert_eq!(summary_of(&masked), Ok(spec().summary()));
    }

    #[test]
    fn only_a_network_with_nat_is_forwarded() {
        assert!(spec().document().contains("<forward mode=\"nat\"/>"));
        assert!(!NetworkSpec { forward: Forward::Isolated, ..spec() }.document().contains("forward"));
    }
}
