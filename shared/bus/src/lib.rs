//! How messages travel: requests, events, and durable tables. The only crate that knows async-nats.
//!
//! ```text
//!      call::<R>            publish::<E>           Table<T>
//!          |                     |                    |
//!          |   body: MessagePack or JSON   headers: trace context, content type
//!          v                     v                    v
//!   +------------------------- Transport -------------------------+
//!   |   nats: a server and JetStream       memory: one process    |
//!   +--------------------------------------------------------------+
//!          |                     |
//!   Server::on::<R>          subscribe::<E>       discover: which services run ($SRV)
//! ```
//!
//! Promises: every call ends within its deadline with a reply, a refusal, a failure or a transport error that says
//! what happened; a request in JSON is answered in JSON; an unreadable or oversized body is answered, never obeyed and
//! never dropped; a row that cannot be read is set aside and reported (`Bus::unreadable_rows`), never written over or
//! removed, and hides no other; the trace goes on from caller to owner; both transports pass one suite (`tests/suite.rs`).
//! It does not know what any message means, and decides nothing.
//!
//! Next: `contract` for the messages, `chassis` for how a service opens its server.

#![warn(clippy::missing_errors_doc)]

mod body;
mod call;
mod caller;
mod generation;
pub mod memory;
mod metrics;
pub mod nats;
mod people;
mod publish;
mod row;
mod serve;
mod table;
mod transport;

pub use body::{Encoding, MESSAGE_BYTES_MAX};
pub use call::{CallError, Destination};
pub use contract::message::Caller;
pub use people::People;
pub use publish::{Bus, EventSubscription};
pub use row::{UnreadableRow, read as read_row, write as write_row};
pub use serve::{ErrorReply, IncomingRequest, RunningServer, Server};
pub use table::{Changes, Entry, Revision, Rows, Table, TableError};
pub use transport::{CanaryError, DiscoveredService, Envelope, ServiceInfo, Transport, TransportError};
