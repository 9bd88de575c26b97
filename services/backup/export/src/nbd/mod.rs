//! An NBD server: one process shows disks, any NBD client reads them (QEMU, `nbdcopy`, `nbd-client`, our own backup).
//!
//! Promises: ready as soon as its socket is bound, whatever the disk's size; a request is answered when its bytes are
//! there, not when its turn comes; memory, requests and connections are bounded; a peer that talks nonsense, stops in
//! the middle or takes no answers loses its connection and nobody else notices; a read-only disk is never written.
//!
//! ```text
//!   listener ──connection──> handshake ──export──> transmission: reads requests, checks them
//!    0600 or    (bounded      (options,                 │  slot: requests and bytes in flight
//!    loopback    number)       deadline)                v
//!                                          one task per request ──replies──> writer task ──> client
//!                                            command on the disk   (out of order, whole chunks)
//! ```
//!
//! Spoken is the fixed newstyle handshake with `base:allocation` and structured replies, as the protocol's document
//! (`doc/proto.md` of NetworkBlockDevice/nbd) has them; no TLS, no extended headers. It deliberately does not know
//! who may connect: the socket's file mode, or being on this host, decides.
//!
//! Next: [`NbdServer`]; `request.rs` and `option.rs` are the parsers, `commands.rs` what a request does.

mod commands;
mod connection;
mod error;
mod export;
mod handshake;
mod listener;
mod reply;
mod request;
mod server;
mod settings;

pub use export::{Export, ExportNameRefused};
pub use listener::{Listen, ListenError};
pub use server::NbdServer;
pub use settings::ServerSettings;
