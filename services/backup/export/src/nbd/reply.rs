//! Replies to the client as bytes, and the queue to its connection.

use std::sync::Arc;

use backup_repository::nbd_wire::{
    BlockStatus, Descriptor, ErrorChunk, HoleChunk, REPLY_FLAG_DONE, REPLY_TYPE_BLOCK_STATUS,
    REPLY_TYPE_ERROR, REPLY_TYPE_NONE, REPLY_TYPE_OFFSET_DATA, REPLY_TYPE_OFFSET_HOLE, ReplyChunkHeader,
    SimpleReply,
};
use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// The id of `base:allocation`, the only context that this server offers.
pub(super) const ALLOCATION_ID: u32 = 1;
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
pub(super) enum ReplyDone {
    Yes,
    No,
}

/// One request among those that may be in flight, and its bytes.
pub(super) struct InFlightPermits {
    pub(super) _request: OwnedSemaphorePermit,
    pub(super) _bytes: OwnedSemaphorePermit,
}

/// Where a request puts its replies. What the request may hold in memory is given back when the last copy of this
/// and the last of its replies are gone.
#[derive(Clone)]
pub(super) struct ReplySender {
    pub(super) outgoing: mpsc::Sender<(Reply, Arc<InFlightPermits>)>,
    pub(super) permits: Arc<InFlightPermits>,
}

/// The client takes no more replies.
#[derive(Debug)]
pub(super) struct ClientGone;

impl ReplySender {
    pub(super) async fn send(&self, reply: Reply) -> Result<(), ClientGone> {
        self.outgoing.send((reply, Arc::clone(&self.permits))).await.map_err(|_| ClientGone)
    }
}

/// A simple reply: an error number, or 0 and the data.
pub(super) fn simple(cookie: u64, errno: u32, data: Bytes) -> Reply {
    Reply { head: Bytes::copy_from_slice(&SimpleReply { errno, cookie }.encode()), data }
}

/// Bytes of the disk at `offset`.
pub(super) fn data(cookie: u64, offset: u64, bytes: Bytes, last: ReplyDone) -> Reply {
    chunk(cookie, REPLY_TYPE_OFFSET_DATA, &offset.to_be_bytes(), bytes, last)
}

/// Zeros at `offset`.
pub(super) fn hole(cookie: u64, offset: u64, length: u32, last: ReplyDone) -> Reply {
    chunk(cookie, REPLY_TYPE_OFFSET_HOLE, &HoleChunk { offset, length }.encode(), Bytes::new(), last)
}

/// The end of an answer that carries nothing else.
pub(super) fn done(cookie: u64) -> Reply {
    chunk(cookie, REPLY_TYPE_NONE, &[], Bytes::new(), ReplyDone::Yes)
}

/// What `base:allocation` says from the requested offset on.
pub(super) fn block_status(cookie: u64, descriptors: Vec<Descriptor>) -> Reply {
    let status = BlockStatus { context: ALLOCATION_ID, descriptors };
    chunk(cookie, REPLY_TYPE_BLOCK_STATUS, &status.encode(), Bytes::new(), ReplyDone::Yes)
}

/// An error in a structured answer, and its end.
pub(super) fn error(cookie: u64, errno: u32, why: &str) -> Reply {
    let message = why[..why.floor_char_boundary(REASON_BYTES_MAX)].to_owned();
    chunk(cookie, REPLY_TYPE_ERROR, &ErrorChunk { errno, message }.encode(), Bytes::new(), ReplyDone::Yes)
}

/// A chunk whose payload are `fields` and `data`.
fn chunk(cookie: u64, kind: u16, fields: &[u8], data: Bytes, last: ReplyDone) -> Reply {
    let flags = if last == ReplyDone::Yes { REPLY_FLAG_DONE } else { 0 };
    let length = fields.len() + data.len();
    let length = length.try_into().expect("no chunk is longer than a request may ask for");
    let header = ReplyChunkHeader { flags, kind, cookie, length }.encode();
    let mut head = BytesMut::with_capacity(header.len() + fields.len());
    head.extend_from_slice(&header);
    head.extend_from_slice(fields);
    Reply { head: head.freeze(), data }
}
