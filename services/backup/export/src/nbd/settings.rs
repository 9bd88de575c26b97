//! The bounds of a server.

use std::time::Duration;

use backup_repository::nbd_wire::PAYLOAD_BYTES_MAX_DEFAULT;

/// One request carries or asks for no more: what clients keep to without asking, and what QEMU bounds itself to.
pub(super) const REQUEST_BYTES_MAX: u32 = PAYLOAD_BYTES_MAX_DEFAULT;

/// How much a server gives to its clients, and how long it waits for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerSettings {
    /// Connections at a time. One more is closed as soon as it is made, so that its client learns of it.
    pub connections_max: usize,
    /// Requests that one connection may have unanswered; then no more of them are read.
    pub requests_in_flight: usize,
    /// Bytes that the unanswered requests of one connection may hold in memory; at least one longest request
    /// (32 MiB) is always let through.
    pub bytes_in_flight: usize,
    /// From being connected to having chosen an export.
    pub handshake_timeout: Duration,
    /// From the first byte of a request to its last. How long a client is silent between requests is its own matter.
    pub request_timeout: Duration,
    /// How long an answer may stand ready without the client taking any of it: a stopped guest is given some minutes.
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
