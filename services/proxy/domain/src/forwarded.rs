//! The client's address and scheme, and the headers that tell the upstream.
//!
//! Forwarding headers from an untrusted peer are discarded. Those of a trusted proxy are read from the right: each
//! trusted hop vouches for the one before it, and the first address that is not trusted is the client's. Log, limits
//! and upstreams all get this one address.
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

/// Longer chains are loops or forged.
const HOPS_MAX: usize = 32;

/// The proxies in front of this one whose forwarding headers are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Networks they are in.
    pub networks: Vec<IpNet>,
    /// The header that they set. The other one is ignored: they pass it on as the client sent it.
    pub header: ForwardedHeader,
}

/// The header that lists the client and the hops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardedHeader {
    /// `X-Forwarded-For` and `X-Forwarded-Proto`.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// The scheme that the client used towards the outermost trusted proxy, or towards this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As in a header.
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

/// The client of a request, as far as it is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    /// The client, then the trusted hops, the peer of the connection last. Never empty.
    addresses: Vec<IpAddr>,
    /// The client's scheme.
    pub scheme: Scheme,
    /// Whether the peer is a trusted proxy, whose trace context is believed too.
    pub peer_is_trusted: bool,
}

impl ClientInfo {
    /// The client's address.
    pub fn address(&self) -> IpAddr {
        self.addresses[0]
    }
}

/// Whether a header tells who the client is; only this proxy sets these.
pub fn is_forwarding_header(name: &HeaderName) -> bool {
    name == FORWARDED || name == X_REAL_IP || name.as_str().starts_with(PREFIX)
}

impl TrustedProxies {
    /// Whether the address belongs to a trusted proxy.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(&address))
    }

    /// The client of a request from `peer`, whose connection to this proxy uses `own_scheme`.
    pub fn client_info(&self, peer: IpAddr, own_scheme: Scheme, headers: &HeaderMap) -> ClientInfo {
        let peer = peer.to_canonical();
        let peer_is_trusted = self.contains(peer);
        let mut addresses = vec![peer];
        let mut scheme = own_scheme;
        if peer_is_trusted {
            let hops = match self.header {
                ForwardedHeader::XForwardedFor => {
                    let proto = values(headers, &X_FORWARDED_PROTO).next_back().and_then(Scheme::read);
                    scheme = proto.unwrap_or(scheme);
                    values(headers, &X_FORWARDED_FOR)
                        .map(|hop| (read_node(hop), None))
                        .rev()
                        .take(HOPS_MAX)
                        .collect()
                }
                ForwardedHeader::Forwarded => forwarded_hops(headers),
            };
            for (address, proto) in hops {
                scheme = proto.unwrap_or(scheme);
                // An invalid hop vouches for none before it.
                let Some(address) = address else { break };
                addresses.push(address);
                if !self.contains(address) {
                    break;
                }
            }
        }
        addresses.reverse();
        ClientInfo { addresses, scheme, peer_is_trusted }
    }
}

/// Replaces all headers about the client by verified ones. `host` is the requested host.
pub fn set_forwarding_headers(headers: &mut HeaderMap, client: &ClientInfo, host: &HeaderValue) {
    let received: Vec<HeaderName> =
        headers.keys().filter(|name| is_forwarding_header(name)).cloned().collect();
    for name in received {
        headers.remove(name);
    }
    let value = |text: &str| HeaderValue::from_str(text).expect("addresses and schemes are visible ASCII");
    let (mut plain, mut standard) = (String::with_capacity(48), String::with_capacity(96));
    for (position, address) in client.addresses.iter().enumerate() {
        let separator = if position == 0 { "" } else { ", " };
        write!(plain, "{separator}{address}").expect("writing to a string cannot fail");
        match address {
            IpAddr::V4(address) => write!(standard, "{separator}for={address}"),
            IpAddr::V6(address) => write!(standard, "{separator}for=\"[{address}]\""),
        }
        .expect("writing to a string cannot fail");
        if position == 0 {
            write!(standard, ";proto={}", client.scheme.as_str()).expect("writing to a string cannot fail");
            if let Ok(host) = host.to_str() {
                write!(standard, ";host=\"{host}\"").expect("writing to a string cannot fail");
            }
        }
    }
    headers.insert(X_FORWARDED_FOR, value(&plain));
    headers.insert(FORWARDED, value(&standard));
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(client.scheme.as_str()));
    headers.insert(X_FORWARDED_HOST, host.clone());
    let address = plain.split(',').next().unwrap_or(&plain);
    headers.insert(X_REAL_IP, value(address));
    headers.append(VIA, HeaderValue::from_static("1.1 loam"));
}

/// The comma-separated members of all headers of a name, left to right.
fn values<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or("unreadable").split(','))
        .map(str::trim)
}

/// The hops of `Forwarded`, right to left: the address that each names, and the scheme it saw.
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

/// Splits at separators outside quotes.
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
