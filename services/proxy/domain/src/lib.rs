//! What the proxy decides, as values and functions: no socket, no clock, no task.
//!
//! ```text
//!   bytes ──> framing ──> request ──> host ──> table ──> target
//!             (strict)    (sound?)    (whose?) (where?)    │
//!                                                          v
//!             answer <── hygiene (hop by hop, forwarded) <── retry (again?)   pace (too slow?)
//! ```
//!
//! - [`framing`] judges a client's HTTP/1 bytes before anything parses them: what can be read in two ways is refused;
//! - [`request`] judges a parsed head (HTTP/1 and HTTP/2 alike) and finds the host that is asked for;
//! - [`host`] reads a `Host` field; [`table`] says who answers for it, [`route`] what an entry is and [`diff`] what
//!   changed between two tables;
//! - [`hygiene`] and [`forwarded`] rewrite heads: what is for one hop only stays behind, and who the client is gets
//!   said by us alone;
//! - [`trace`] reads and writes the W3C trace context;
//! - [`retry`] says what may be tried again, [`pace`] who is too slow, [`origin`] which connections count as one client's.
//!
//! It deliberately does not know hyper, tokio, the bus, or how a virtual machine is made; `proxy::front` does what is
//! decided here.

pub mod diff;
pub mod forwarded;
pub mod framing;
pub mod host;
pub mod hygiene;
pub mod known;
pub mod origin;
pub mod pace;
pub mod request;
pub mod retry;
pub mod route;
pub mod table;
pub mod trace;

pub use diff::TableDiff;
pub use host::Host;
pub use known::{KnownVm, claims};
pub use route::{Claim, Conflict, DownReason, Route, Target};
pub use table::RouteTable;
