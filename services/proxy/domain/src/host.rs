//! The host of a request: `Web.Example.:8080` and `web.example` are the same.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

/// A host in canonical form: a DNS name in lower case without a final dot, or an IP address. The port is left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A DNS name, as in a route table.
    Name(Box<str>),
    /// An IP address; routes have names, so it matches none.
    Address(IpAddr),
}

/// Why a text is not a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InvalidHost {
    /// There is nothing before the port.
    #[error("the host is empty")]
    Empty,
    /// The name has a character or a label that no DNS name has.
    #[error("the host is not a DNS name or an address")]
    Name,
    /// The port is not a number up to 65535.
    #[error("the port of the host is not a number up to 65535")]
    Port,
}

const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;

impl Host {
    /// Parses the value of a `Host` field or an `:authority`.
    ///
    /// # Errors
    ///
    /// The text is neither a DNS name nor an IP address, or its port is invalid.
    pub fn parse(text: &str) -> Result<Self, InvalidHost> {
        if let Some(literal) = text.strip_prefix('[') {
            let (address, port) = literal.split_once(']').ok_or(InvalidHost::Name)?;
            check_port(port)?;
            let address: Ipv6Addr = address.parse().map_err(|_| InvalidHost::Name)?;
            return Ok(Self::Address(IpAddr::V6(address).to_canonical()));
        }
        let name_bytes = text.find(':').unwrap_or(text.len());
        let (name, port) = text.split_at(name_bytes);
        check_port(port)?;
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() {
            return Err(InvalidHost::Empty);
        }
        if let Ok(address) = name.parse::<Ipv4Addr>() {
            return Ok(Self::Address(address.into()));
        }
        let valid = name.len() <= NAME_BYTES_MAX && name.split('.').all(is_label);
        if !valid {
            return Err(InvalidHost::Name);
        }
        Ok(Self::Name(name.to_ascii_lowercase().into_boxed_str()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Underscores are not valid in host names, yet browsers send them: such a host is valid and has no route.
fn is_label(label: &str) -> bool {
    (1..=LABEL_BYTES_MAX).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// `text` is what follows the host: nothing, or a colon and the port (which may be empty, RFC 3986).
fn check_port(text: &str) -> Result<(), InvalidHost> {
    let Some(port) = text.strip_prefix(':') else {
        return if text.is_empty() { Ok(()) } else { Err(InvalidHost::Port) };
    };
    let valid =
        port.bytes().all(|byte| byte.is_ascii_digit()) && (port.is_empty() || port.parse::<u16>().is_ok());
    if valid { Ok(()) } else { Err(InvalidHost::Port) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Host {
        Host::Name(text.into())
    }

    #[test]
    fn case_final_dot_and_port_make_no_difference() {
        for text in [
            "web.example",
            "WEB.example",
            "web.example.",
            "web.example:8080",
            "Web.Example.:443",
            "web.example:",
        ] {
            assert_eq!(Host::parse(text), Ok(name("web.example")), "{text}");
        }
    }

    #[test]
    fn ip_addresses_are_parsed() {
        let loopback = Host::Address(Ipv6Addr::LOCALHOST.into());
        assert_eq!(Host::parse("[::1]"), Ok(loopback.clone()));
        assert_eq!(Host::parse("[::1]:8080"), Ok(loopback.clone()));
        assert_eq!(loopback.to_string(), "[::1]");
        let v4 = Host::Address(Ipv4Addr::new(192, 0, 2, 1).into());
        assert_eq!(Host::parse("192.0.2.1:80"), Ok(v4.clone()));
        assert_eq!(Host::parse("[::ffff:192.0.2.1]"), Ok(v4));
    }

    #[test]
    fn invalid_hosts_are_refused() {
        for text in [
            "", ":80", ".", "a..b", ".a", "a b", "a/b", "u@a", "a:b", "a:65536", "a:1:2", "::1", "[::1",
            "[::1]x", "[web]", "a%2e", "wéb", "a\t", "a,b",
        ] {
            assert!(Host::parse(text).is_err(), "{text:?}");
        }
        assert!(Host::parse(&"a".repeat(64)).is_err());
        assert!(Host::parse(&["abc"; 64].join(".")).is_err());
    }

    proptest! {
        #[test]
        fn every_domain_name_of_the_contract_is_found_however_it_is_written(
            domain in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\\.[a-z]([a-z0-9-]{0,10}[a-z0-9])?){1,4}",
            dot in any::<bool>(), port in any::<Option<u16>>(), upper in any::<bool>(),
        ) {
            let mut text = if upper { domain.to_ascii_uppercase() } else { domain.clone() };
            if dot { text.push('.'); }
            if let Some(port) = port { text.push_str(&format!(":{port}")); }
            prop_assert_eq!(Host::parse(&text), Ok(name(&domain)));
        }

        #[test]
        fn a_displayed_host_parses_to_itself(text in "\\PC{0,40}") {
            if let Ok(host) = Host::parse(&text) {
                prop_assert_eq!(Host::parse(&host.to_string()), Ok(host));
            }
        }
    }
}
