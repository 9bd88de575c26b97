//! Every timeout and every size of the frontend, with its default and the reason for it.

use std::time::Duration;

use proxy_domain::forwarded::TrustedProxies;
use proxy_domain::framing::HeadLimits;
use proxy_domain::transfer::SlowTransferLimits;

/// hyper's buffer for each direction of a connection. Larger reads save system calls, smaller ones memory.
pub(super) const BUFFER_BYTES: usize = 128 * 1024;

/// The frontend's settings; the defaults suit the public internet.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Bounds of sizes and numbers.
    pub limits: Limits,
    /// Bounds of waits.
    pub timeouts: Timeouts,
    /// How slowly a client may send or read a body.
    pub slow_transfer: SlowTransferLimits,
    /// The proxies in front of this one, whose forwarding headers are believed.
    pub trusted_proxies: TrustedProxies,
}

/// Bounds of sizes and numbers.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes and fields of a request head.
    pub head: HeadLimits,
    /// Client connections at once; further ones wait in the system's queue.
    pub connections_max: usize,
    /// Connections at once from one IPv4 address or IPv6 /64; further ones get 429. Trusted proxies are exempt.
    pub connections_per_client_max: usize,
    /// Requests at once on one HTTP/2 connection.
    pub http2_streams_max: u32,
    /// Idle connections kept for each upstream.
    pub idle_per_upstream_max: usize,
}

/// Bounds of waits.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// A request head, from its first byte (or from the start of the connection) to its last.
    pub head_read: Duration,
    /// A client connection without a request.
    pub keep_alive_idle: Duration,
    /// Connecting to an upstream.
    pub connect: Duration,
    /// From the last byte of the request that an upstream accepted to the first byte of its response.
    pub first_byte: Duration,
    /// Between two reads of a response from an upstream. Event streams may be silent and have `tunnel_idle` instead.
    pub upstream_idle: Duration,
    /// An idle upstream connection in the pool.
    pub pooled_idle: Duration,
    /// A tunnel in which no byte moves in either direction.
    pub tunnel_idle: Duration,
    /// From the removal of a tunnel's route to the end of the tunnel.
    pub tunnel_without_route: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: HeadLimits::default(),
            // Each costs at most two descriptors and some 20 KiB; services commonly have 64 Ki descriptors.
            connections_max: 10_000,
            // A browser opens six per host; dozens of browsers share one office's address.
            connections_per_client_max: 256,
            // What browsers use; more would only help a flood.
            http2_streams_max: 128,
            idle_per_upstream_max: 128,
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head_read: Duration::from_secs(10),
            keep_alive_idle: Duration::from_secs(75),
            // VMs are one or two hops away: connecting takes milliseconds, or three lost packets.
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(60),
            upstream_idle: Duration::from_secs(60),
            pooled_idle: Duration::from_secs(60),
            tunnel_idle: Duration::from_secs(60 * 60),
            tunnel_without_route: Duration::from_secs(60),
        }
    }
}
