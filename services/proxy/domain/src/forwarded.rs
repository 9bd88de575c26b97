//! Who the client is, and how that is said upstream.
//!
//! What a stranger says about where he comes from is thrown away. What a trusted proxy in front of us says is read
//! from the right: each trusted hop vouches for the one before it, and the first address that is not trusted is the
//! client. Logs, limits and upstreams all get that one identity.
//!
//! ```text
//!   X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.0.0.4      peer 10.0.0.5      trusted 10.0.0.0/8
//!                    forged   ^ client     trusted       trusted
//! ```

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderName, VIA};
use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const PREFIX: &str = "x-forwarded-";

/// Longer chains are loops or lies; the walk ends here.
const HOPS_MAX: usize = 32;

/// The proxies in front of us whose word counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedPeers {
    /// Networks they are in.
    pub networks: Vec<IpNet>,
    /// The field in which they say it. The other one is not read, since they pass it on as the client wrote it.
    pub speak: ChainField,
}

/// The field that carries the chain of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChainField {
    /// `X-Forwarded-For` and `X-Forwarded-Proto`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The scheme that the client used towards the outermost trusted proxy, or towards us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As it stands in a field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn read(text: &str) -> Option<Self> {
        let is = |name: &str| text.trim().eq_ignore_ascii_case(name);
        if is("https") { Some(Self::Https) } else { is("http").then_some(Self::Http) }
    }
}

/// Who asks, as far as we can vouch for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The client, then the trusted hops it came through, our peer last. Never empty.
    chain: Vec<IpAddr>,
    /// How the client connected.
    pub scheme: Scheme,
    /// Whether our peer is trusted, so that its trace context counts too.
    pub peer_is_trusted: bool,
}

impl Identity {
    /// The client's address.
    pub fn client(&self) -> IpAddr {
        self.chain[0]
    }
}

/// Whether a field says who the client is; such fields are set by us alone.
pub fn is_ours(name: &HeaderName) -> bool {
    name == FORWARDED || name == X_REAL_IP || name.as_str().starts_with(PREFIX)
}

impl TrustedPeers {
    /// Whether the address belongs to a trusted proxy.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// Finds out who asks, from the peer's address and what its head says. `own_scheme` is how the peer reached us.
    pub fn identify(&self, peer: IpAddr, own_scheme: Scheme, headers: &HeaderMap) -> Identity {
        let peer = peer.to_canonical();
        let peer_is_trusted = self.contains(peer);
        let mut chain = vec![peer];
        let mut scheme = own_scheme;
        if peer_is_trusted {
            let hops = match self.speak {
                ChainField::XForwardedFor => {
                    let proto = values(headers, &X_FORWARDED_PROTO).next_back().and_then(Scheme::read);
                    scheme = proto.unwrap_or(scheme);
                    values(headers, &X_FORWARDED_FOR)
                        .map(|hop| (read_node(hop), None))
                        .rev()
                        .take(HOPS_MAX)
                        .collect()
                }
                ChainField::Forwarded => forwarded_hops(headers),
            };
            for (address, proto) in hops {
                scheme = proto.unwrap_or(scheme);
                // What cannot be read vouches for nobody before it.
                let Some(address) = address else { break };
                chain.push(address);
                if !self.contains(address) {
                    break;
                }
            }
        }
        chain.reverse();
        Identity { chain, scheme, peer_is_trusted }
    }
}

/// Replaces whatever a head says about its client by what we vouch for. `host` is the host that was asked for.
pub fn announce(headers: &mut HeaderMap, identity: &Identity, host: &HeaderValue) {
    let forged: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
    let value = |text: &str| HeaderValue::from_str(text).expect("addresses and schemes are visible ASCII");
    let (mut plain, mut standard) = (String::with_capacity(48), String::with_capacity(96));
    for (position, address) in identity.chain.iter().enumerate() {
        let separator = if position == 0 { "" } else { ", " };
        write!(plain, "{separator}{address}").expect("writing to a string cannot fail");
        match address {
            IpAddr::V4(address) => write!(standard, "{separator}for={address}"),
            IpAddr::V6(address) => write!(standard, "{separator}for=\"[{address}]\""),
        }
        .expect("writing to a string cannot fail");
        if position == 0 {
            write!(standard, ";proto={}", identity.scheme.as_str()).expect("writing to a string cannot fail");
            if let Ok(host) = host.to_str() {
                write!(standard, ";host=\"{host}\"").expect("writing to a string cannot fail");
            }
        }
    }
    headers.insert(X_FORWARDED_FOR, value(&plain));
    headers.insert(FORWARDED, value(&standard));
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(identity.scheme.as_str()));
    headers.insert(X_FORWARDED_HOST, host.clone());
    let client = plain.split(',').next().unwrap_or(&plain);
    headers.insert(X_REAL_IP, value(client));
    headers.append(VIA, HeaderValue::from_static("1.1 loam"));
}

/// The comma-separated members of all fields of a name, left to right.
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or("unreadable").split(','))
        .map(str::trim)
}

/// The hops of `Forwarded`, right to left: whom each names, and the scheme it saw.
fn forwarded_hops(headers: &HeaderMap) -> Vec<(Option<IpAddr>, Option<Scheme>)> {
    let mut hops = Vec::new();
    for value in headers.get_all(FORWARDED).iter().rev() {
        let elements: Vec<&str> =
            value.to_str().map(|text| outside_quotes(text, ',').collect()).unwrap_or_default();
        if elements.is_empty() {
            hops.push((None, None));
        }
        for element in elements.into_iter().rev() {
            let (mut address, mut scheme) = (None, None);
            for pair in outside_quotes(element, ';') {
                let Some((name, value)) = pair.split_once('=') else {
                    continue;
                };
                let value = value.trim().trim_matches('"');
                match name.trim().to_ascii_lowercase().as_str() {
                    "for" => address = read_node(value),
                    "proto" => scheme = Scheme::read(value),
                    _ => {}
                }
            }
            hops.push((address, scheme));
            if hops.len() == HOPS_MAX {
                return hops;
            }
        }
    }
    hops
}

/// Splits at a separator that does not stand in quotes.
fn outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |character| {
        quoted ^= character == '"';
        character == separator && !quoted
    })
}

/// An address, with or without port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn read_node(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests;
