//! Every wait and every size of the front, named, with its default and why.

use std::time::Duration;

use proxy_domain::forwarded::TrustedPeers;
use proxy_domain::framing::HeadLimits;
use proxy_domain::pace::PaceLimits;

/// hyper's buffer for each direction of a connection. Larger reads save system calls, smaller ones memory.
pub(super) const BUFFER_BYTES: usize = 128 * 1024;

/// How the front behaves; the default is fit for the open network.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Sizes.
    pub limits: Limits,
    /// Waits.
    pub timeouts: Timeouts,
    /// What is asked of a client that sends or takes a body.
    pub pace: PaceLimits,
    /// The proxies in front of us whose word about their clients counts.
    pub trusted: TrustedPeers,
}

/// What is bounded in size or number.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes and fields of a request head.
    pub head: HeadLimits,
    /// Client connections at once; further ones wait in the system's queue.
    pub connections_max: usize,
    /// Connections at once of one IPv4 address or IPv6 /64; further ones get 429. Trusted peers are exempt.
    pub connections_per_origin_max: usize,
    /// Requests at once on one HTTP/2 connection.
    pub http2_streams_max: u32,
    /// Unused connections kept for each machine.
    pub idle_upstreams_max: usize,
}

/// How long anything may take.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// A request head, from its first byte (or from the connection) to its last.
    pub head_read: Duration,
    /// A client connection without a request.
    pub keep_alive_idle: Duration,
    /// Connecting to a machine.
    pub connect: Duration,
    /// From the last byte of the request that a machine took to the first of its answer.
    pub first_byte: Duration,
    /// Silence of a machine within an answer. Event streams are silent by nature and have `tunnel_idle` instead.
    pub upstream_idle: Duration,
    /// An unused connection to a machine.
    pub pooled_idle: Duration,
    /// A tunnel on which nothing moves in either direction.
    pub tunnel_idle: Duration,
    /// What a tunnel has left when its route is taken away.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: HeadLimits::default(),
            // Each costs two descriptors at most and some 20 KiB; services are commonly given 64 Ki descriptors.
            connections_max: 10_000,
            // A browser opens six for a host, an office behind one address has some dozens of browsers.
            connections_per_origin_max: 256,
            // What browsers are used to; more only helps whoever floods.
            http2_streams_max: 128,
            idle_upstreams_max: 128,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head_read: Duration::from_secs(10),
            keep_alive_idle: Duration::from_secs(75),
            // Machines are one or two hops away: a connection takes milliseconds, or three lost packets.
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(60),
            upstream_idle: Duration::from_secs(60),
            pooled_idle: Duration::from_secs(60),
            tunnel_idle: Duration::from_secs(60 * 60),
            drain: Duration::from_secs(60),
        }
    }
}
