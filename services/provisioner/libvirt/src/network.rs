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
use std::path::Path;

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
    /// Creates the network where it is missing, and starts it where it is stopped. What cannot be started is not left
    /// defined.
    ///
    /// # Errors
    /// [`Error::NetworkDiffers`] when one of that name has another bridge or address: it may belong to others, so it is
    /// left alone. [`Error::NetworkInUse`] when bridge or address are in use elsewhere on this host.
    pub fn ensure_network(&mut self, spec: &NetworkSpec) -> Result<EnsureOutcome, Error> {
        if self.is_in_place(spec)? {
            return Ok(EnsureOutcome::AlreadyInPlace);
        }
        if let Some(reason) = taken_on_host(spec) {
            // Perhaps by another caller, who was faster.
            if self.is_in_place(spec)? {
                return Ok(EnsureOutcome::AlreadyInPlace);
            }
            return Err(Error::NetworkInUse { name: spec.name.clone(), reason });
        }
        let (attempt, document) = (format!("make network {}", spec.name), spec.document());
        self.call(CallClass::Network, &attempt, |connect| {
            if let Some(network) = known(connect.lookup_network_by_name(&spec.name))? {
                return bring_up(&network);
            }
            let network = match connect.define_network_xml(&document) {
                Ok(network) => network,
                // Another caller was faster, between our two calls.
                Err(error) => {
                    let network = known(connect.lookup_network_by_name(&spec.name))?.ok_or(error)?;
                    return bring_up(&network);
                }
            };
            bring_up(&network).inspect_err(|_| {
                // The error of the start says more than one of the clean-up would.
                let _ = network.undefine();
            })
        })
    }

    /// Whether a network of this name runs, as it should be.
    fn is_in_place(&mut self, spec: &NetworkSpec) -> Result<bool, Error> {
        let attempt = format!("look up network {}", spec.name);
        let found = self.call(CallClass::Query, &attempt, |connect| {
            let network = known(connect.lookup_network_by_name(&spec.name))?;
            network.map(|network| Ok((network.is_active()?, network.xml_desc(0)?))).transpose()
        })?;
        let Some((is_active, document)) = found else {
            return Ok(false);
        };
        let found = summary_of(&document).map_err(|reason| Error::MalformedReply { attempt, reason })?;
        if found == spec.summary() {
            Ok(is_active)
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

/// What on this host is in the way of a network that does not run yet, and what to do; a sentence.
fn taken_on_host(spec: &NetworkSpec) -> Option<String> {
    let bridge = &spec.bridge;
    if Path::new("/sys/class/net").join(bridge).exists() {
        return Some(format!("this host has an interface {bridge} already; give the bridge another name"));
    }
    // A host whose addresses cannot be listed: libvirt finds out by itself.
    let interfaces = nix::ifaddrs::getifaddrs().ok()?;
    interfaces.into_iter().find_map(|interface| {
        let address = interface.address?.as_sockaddr_in()?.ip();
        let prefix = u32::from(interface.netmask?.as_sockaddr_in()?.ip()).leading_ones();
        clashes(spec, address, prefix).then(|| {
            let (name, wanted, bits) = (&interface.interface_name, spec.host_address, spec.prefix_length);
            format!(
                "interface {name} of this host has {address}/{prefix}, which is in {wanted}/{bits}; give the network \
                 another address"
            )
        })
    })
}

/// Whether an address of the host is within the network. A wider network around it is none of ours: the narrower route
/// counts.
fn clashes(spec: &NetworkSpec, address: Ipv4Addr, prefix: u32) -> bool {
    let bits = u32::from(spec.prefix_length).min(32);
    let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
    let is_inside = u32::from(address) & mask == u32::from(spec.host_address) & mask;
    address == spec.host_address || (is_inside && prefix >= bits)
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
    fn an_address_within_the_network_clashes_and_a_wider_route_does_not() {
        let clashes = |address: [u8; 4], prefix| super::clashes(&spec(), address.into(), prefix);
        assert!(clashes([10, 105, 0, 1], 8), "the very address");
        assert!(clashes([10, 105, 0, 7], 24), "the same network");
        assert!(clashes([10, 105, 0, 65], 26) && clashes([10, 105, 0, 9], 32), "a part of it");
        assert!(!clashes([10, 1, 2, 3], 8), "a route around it");
        assert!(!clashes([10, 105, 1, 1], 24) && !clashes([192, 168, 0, 1], 24));
    }

    #[test]
    fn only_a_network_with_nat_is_forwarded() {
        assert!(spec().document().contains("<forward mode=\"nat\"/>"));
        assert!(!NetworkSpec { forward: Forward::Isolated, ..spec() }.document().contains("forward"));
    }
}
