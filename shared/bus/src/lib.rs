//! How words travel: ask, answer, tell, listen, and durable tables. The only place that knows async-nats.
//!
//! ```text
//!      call::<R>            publish::<E>           Table<T>
//!          |                     |                    |
//!          |   body: MessagePack or JSON   headers: trace context, content type
//!          v                     v                    v
//!   +------------------------- Transport ---------------------------+
//!   |   nats: a server and JetStream       memory: one process    |
//!   +--------------------------------------------------------------+
//!          |                     |
//!   Server::on::<R>          listen::<E>          discover: who is there ($SRV)
//! ```
//!
//! Promises: every call ends within its deadline with a reply, a refusal, a failure or a clear word about the link; a
//! question in JSON is answered in JSON; an unreadable or oversized body is answered, never obeyed and never
//! dropped; the trace goes on from asker to answerer; both carriers pass one suite (`tests/suite.rs`).
//! It does not know what any word means, and decides nothing.
//!
//! Next: `contract` for the words, `chassis` for how a service opens its endpoints_open.

mod body;
mod call;
mod transport;
pub mod memory;
mod metrics;
pub mod nats;
mod publish;
mod serve;
mod table;

pub use body::{Encoding, MESSAGE_BYTES_MAX};
pub use call::{CallError, Destination};
pub use transport::{Transport, Envelope, TransportError, Peer, ServiceInfo};
pub use publish::{Bus, EventStream};
pub use serve::{Asked, Caller, Declined, Server, Serving};
pub use table::{Entry, Revision, Table, TableError};
