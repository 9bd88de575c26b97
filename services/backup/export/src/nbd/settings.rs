//! The bounds of a server.

use std::time::Duration;

use backup_repository::nbd_wire::PAYLOAD_BYTES_MAX_DEFAULT;

/// One request carries or asks for no more: what clients keep to by default, and QEMU always.
pub(super) const REQUEST_BYTES_MAX: u32 = PAYLOAD_BYTES_MAX_DEFAULT;

/// Limits and timeouts of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Connections at a time. One more is closed at once, so that its client notices.
    pub connections_max: usize,
    /// Requests that one connection may have unanswered; then no more of them are read.
    pub requests_in_flight: usize,
    /// Bytes that the unanswered requests of one connection may hold in memory; at least one longest request
    /// (32 MiB) is always let through.
    pub bytes_in_flight: usize,
    /// From being connected to having chosen an export.
    pub handshake_timeout: Duration,
    /// From the first byte of a request to its last. Between requests there is no timeout.
    pub request_timeout: Duration,
    /// How long a reply may wait for the client to take it: a stopped guest needs some minutes.
    pub reply_timeout: Duration,
}

impl Default for ServerSettings {
    fn default() -> ServerSettings {
        ServerSettings {
            connections_max: 16,
            requests_in_flight: 64,
            bytes_in_flight: 2 * REQUEST_BYTES_MAX as usize,
            handshake_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            reply_timeout: Duration::from_secs(300),
        }
    }
}
