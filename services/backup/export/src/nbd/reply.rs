//! What goes back to the client, as bytes.

use bytes::{BufMut, Bytes, BytesMut};

use super::wire::*;

/// Longer reasons are cut: they are for people.
const REASON_BYTES_MAX: usize = 512;

/// A reply, or a chunk of one: written to the socket without anything in between.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) head: Bytes,
    pub(super) data: Bytes,
}

/// Whether more chunks of the same answer follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Last {
    Yes,
    No,
}

/// A simple reply: an error number, or 0 and the data.
pub(super) fn simple(cookie: u64, errno: u32, data: Bytes) -> Reply {
    let mut head = BytesMut::with_capacity(16);
    head.put_u32(SIMPLE_REPLY_MAGIC);
    head.put_u32(errno);
    head.put_u64(cookie);
    Reply { head: head.freeze(), data }
}

/// Bytes of the disk at `offset`.
pub(super) fn data(cookie: u64, offset: u64, bytes: Bytes, last: Last) -> Reply {
    let mut head = chunk(cookie, CHUNK_OFFSET_DATA, 8 + bytes.len(), last);
    head.put_u64(offset);
    Reply { head: head.freeze(), data: bytes }
}

/// Zeros at `offset`.
pub(super) fn hole(cookie: u64, offset: u64, length: u32, last: Last) -> Reply {
    let mut head = chunk(cookie, CHUNK_OFFSET_HOLE, 12, last);
    head.put_u64(offset);
    head.put_u32(length);
    Reply { head: head.freeze(), data: Bytes::new() }
}

/// Nothing, and the end of the answer.
pub(super) fn done(cookie: u64) -> Reply {
    Reply { head: chunk(cookie, CHUNK_NONE, 0, Last::Yes).freeze(), data: Bytes::new() }
}

/// Lengths and states of what lies from the asked offset on, in the context `context`.
pub(super) fn block_status(cookie: u64, context: u32, states: &[(u32, u32)]) -> Reply {
    let mut head = chunk(cookie, CHUNK_BLOCK_STATUS, 4 + 8 * states.len(), Last::Yes);
    head.put_u32(context);
    for (length, state) in states {
        head.put_u32(*length);
        head.put_u32(*state);
    }
    Reply { head: head.freeze(), data: Bytes::new() }
}

/// An error in a structured answer, and its end.
pub(super) fn error(cookie: u64, errno: u32, why: &str) -> Reply {
    let why = &why[..why.floor_char_boundary(REASON_BYTES_MAX)];
    let mut head = chunk(cookie, CHUNK_ERROR, 6 + why.len(), Last::Yes);
    head.put_u32(errno);
    head.put_u16(why.len() as u16);
    head.put_slice(why.as_bytes());
    Reply { head: head.freeze(), data: Bytes::new() }
}

fn chunk(cookie: u64, kind: u16, payload_bytes: usize, last: Last) -> BytesMut {
    let mut head = BytesMut::with_capacity(32);
    head.put_u32(STRUCTURED_REPLY_MAGIC);
    head.put_u16(if last == Last::Yes { CHUNK_FLAG_DONE } else { 0 });
    head.put_u16(kind);
    head.put_u64(cookie);
    head.put_u32(payload_bytes.try_into().expect("no chunk is longer than a request may ask for"));
    head
}
