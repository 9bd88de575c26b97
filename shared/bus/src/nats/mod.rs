//! The transport that production uses: a NATS server, 2.11 or newer, with JetStream.
//!
//! ```text
//!   connect    who we are (nkey), where the server is, how we reconnect; refuses servers that are too old
//!   trust      which servers are trusted: those with a certificate of the installation's authority
//!   exchange   envelopes: request, publish, subscribe, open endpoints, discover
//!   tables     JetStream KV by plain requests: direct get, batched list, publish with expected sequence
//!   bootstrap  the one role that makes buckets; services have no right to
//! ```

mod bootstrap;
mod connect;
mod exchange;
mod tables;
mod trust;

pub use bootstrap::{BootstrapError, bootstrap};
pub use connect::{
    ConnectError, Connection, NatsTransport, SERVER_VERSION_MIN, connect, connect_once, is_let_in, is_too_old,
};
pub use trust::{CertificateDigest, Trust};
