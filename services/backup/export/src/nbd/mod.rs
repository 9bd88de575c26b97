//! An NBD server: it exports disks, and any NBD client reads them (QEMU, `nbdcopy`, `nbd-client`, our own backup).
//!
//! Promises: ready as soon as its socket is bound, whatever the disk's size; a request is answered when its bytes are
//! there, not in the order of requests; memory, requests and connections are bounded; a client that breaks the
//! protocol, stops in the middle or takes no replies loses its connection, and no other client is affected; a read-only
//! disk is never written.
//!
//! ```text
//!   listener ──connection──> handshake ──export──> transmission: reads requests, checks them
//!    0600 or    (bounded      (options,                 │  slot: requests and bytes in flight
//!    loopback    number)       deadline)                v
//!                                          one task per request ──replies──> writer task ──> client
//!                                            command on the disk   (out of order, whole chunks)
//! ```
//!
//! Supported is the fixed newstyle handshake with `base:allocation` and structured replies, as the protocol's document
//! (`doc/proto.md` of NetworkBlockDevice/nbd) has them; no TLS, no extended headers. It does not decide who may
//! connect: the socket's file mode does, or being on this host.
//!
//! Next: [`NbdServer`]; `request.rs` says what is granted, `commands.rs` what a request does; the messages
//! themselves are [`nbd_wire`](backup_repository::nbd_wire), which the client shares.

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
pub use listener::{ListenAddress, ListenError};
pub use server::NbdServer;
pub use settings::ServerSettings;
