//! What the proxy decides, as values and functions: no socket, no clock, no task.
//!
//! ```text
//!   bytes ──> framing ──> request ──> host ──> table ──> target
//!             (strict)    (valid?)             (route)     │
//!                                                          v
//!          response <── headers (hop by hop, forwarded) <── retry (again?)   transfer (too slow?)
//! ```
//!
//! - [`framing`] checks a client's HTTP/1 bytes before anything parses them: what can be read in two ways is refused;
//! - [`request`] validates a parsed head (HTTP/1 and HTTP/2 alike) and finds the requested host;
//! - [`host`] parses a `Host` field; [`table`] finds its route; [`route`] is one entry, [`diff`] compares two tables;
//! - [`headers`] and [`forwarded`] rewrite heads: hop-by-hop fields are removed, and the client's address is replaced
//!   by the verified one;
//! - [`trace`] parses and writes the W3C trace context;
//! - [`retry`] decides what may be sent again, [`transfer`] who is too slow, [`client_network`] which connections count
//!   as one client's.
//!
//! It does not know hyper, tokio, the bus, or how a virtual machine is made; `proxy::adapters::frontend` does what is
//! decided here.

pub mod client_network;
pub mod diff;
pub mod forwarded;
pub mod framing;
pub mod headers;
pub mod host;
pub mod request;
pub mod retry;
pub mod route;
pub mod table;
pub mod trace;
pub mod transfer;
pub mod upstream_vm;

pub use diff::RouteTableDiff;
pub use host::Host;
pub use route::{DomainClaim, DomainConflict, Route, UpstreamState, VmDownReason};
pub use table::RouteTable;
pub use upstream_vm::{Reach, UpstreamVm, claims};
