//! The NBD protocol as bytes: its numbers and the layout of its messages, for our client
//! ([`NbdSource`](crate::NbdSource)) and for our server (the crate `backup-export`).
//!
//! ```text
//!   client                                                    server
//!     <───────────────────────── Greeting ─────────────────────
//!     ── flags, 4 bytes ──────────────────────────────────────>
//!     ── OptionHeader, data: InfoRequest, ContextRequest ─────>   as often as the client likes
//!     <── OptionReplyHeader, data: Info, MetaContext ──────────
//!     ── Request, data of a write ────────────────────────────>   many in flight, told apart by a cookie
//!     <── SimpleReply, data of a read ─────────────────────────   or, once agreed on,
//!     <── ReplyChunkHeader, payload: Hole, BlockStatus, ErrorChunk ──
//! ```
//!
//! Layout and names follow `doc/proto.md` of NetworkBlockDevice/nbd; every field is big-endian. What is read here comes
//! from outside: bytes that are no such message are an error, of kind [`InvalidData`](io::ErrorKind::InvalidData) with
//! [`Malformed`] inside, and nothing is allocated by a length before the caller has bounded it. Which options, commands
//! and sizes are accepted is for client and server to decide.

mod numbers;
mod option;
mod reply;
mod request;

use std::io;

pub use numbers::*;
pub use option::{
    ContextRequest, Greeting, Info, InfoRequest, MetaContext, OptionHeader, OptionReplyHeader, option,
    option_reply, string,
};
pub use reply::{BlockStatus, Descriptor, ErrorChunk, HoleChunk, ReplyChunkHeader, ReplyHeader, SimpleReply};
pub use request::Request;

/// Bytes that do not follow the protocol, and what is wrong with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

impl From<Malformed> for io::Error {
    fn from(malformed: Malformed) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, malformed)
    }
}

/// Takes the first bytes off.
fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (field, rest) = bytes.split_first_chunk().ok_or(Malformed("a message is too short"))?;
    *bytes = rest;
    Ok(*field)
}

#[cfg(test)]
mod tests;
