//! Reads replies and completes the requests that wait for them.

use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::AsyncReadExt;

use super::connection::{PartialReply, PendingRequest, PendingRequests, RequestFailure, lock};
use super::handshake::Reader;
use crate::nbd_wire::{
    BlockStatus, ErrorChunk, HoleChunk, Malformed, REPLY_FLAG_DONE, REPLY_TYPE_BLOCK_STATUS,
    REPLY_TYPE_FLAG_ERROR, REPLY_TYPE_NONE, REPLY_TYPE_OFFSET_DATA, REPLY_TYPE_OFFSET_HOLE, ReplyHeader,
};

/// A block status answer with more descriptors than this (8 MiB) is not valid.
const STATUS_BYTES_MAX: u32 = 8 * 1024 * 1024;
/// An error message longer than this is not valid.
const ERROR_BYTES_MAX: u32 = 8 * 1024;

/// Reads replies until the connection breaks; then everything that waits fails.
pub(super) async fn read_all(mut reader: Reader, pending: Arc<Mutex<PendingRequests>>) {
    loop {
        if let Err(error) = read_reply(&mut reader, &pending).await {
            lock(&pending).fail(&error.to_string());
            return;
        }
    }
}

/// Reads one simple reply or one chunk of a structured one.
async fn read_reply(reader: &mut Reader, pending: &Mutex<PendingRequests>) -> io::Result<()> {
    match ReplyHeader::read(reader).await? {
        ReplyHeader::Simple(reply) => {
            let mut waiting = take(pending, reply.cookie)?;
            if reply.errno != 0 {
                waiting.error = Some(errno(reply.errno));
            } else if let PartialReply::Read { bytes, filled } = &mut waiting.partial_reply {
                reader.read_exact(bytes).await?;
                *filled = bytes.len();
            }
            finish(waiting);
        }
        ReplyHeader::Chunk(chunk) => {
            let mut waiting = take(pending, chunk.cookie)?;
            read_chunk(reader, chunk.kind, chunk.length, &mut waiting).await?;
            if chunk.flags & REPLY_FLAG_DONE == 0 {
                lock(pending).in_flight.insert(chunk.cookie, waiting);
            } else {
                finish(waiting);
            }
        }
    }
    Ok(())
}

fn take(pending: &Mutex<PendingRequests>, cookie: u64) -> io::Result<PendingRequest> {
    lock(pending).in_flight.remove(&cookie).ok_or(Malformed("a reply to no request").into())
}

fn finish(waiting: PendingRequest) {
    let outcome = match waiting.error {
        Some(why) => Err(RequestFailure::Refused(why)),
        None => Ok(waiting.partial_reply),
    };
    // Whoever asked may have gone.
    let _ = waiting.done.send(outcome);
}

async fn read_chunk(
    reader: &mut Reader,
    kind: u16,
    length: u32,
    waiting: &mut PendingRequest,
) -> io::Result<()> {
    match (kind, &mut waiting.partial_reply) {
        (REPLY_TYPE_NONE, _) if length == 0 => {}
        (REPLY_TYPE_OFFSET_DATA, PartialReply::Read { bytes, filled }) if length >= 8 => {
            let at = place(reader.read_u64().await?, waiting.offset, length - 8, bytes.len())?;
            reader.read_exact(&mut bytes[at..at + length as usize - 8]).await?;
            *filled += length as usize - 8;
        }
        (REPLY_TYPE_OFFSET_HOLE, PartialReply::Read { bytes, filled }) if length == HoleChunk::BYTES => {
            let hole = HoleChunk::read(reader).await?;
            let at = place(hole.offset, waiting.offset, hole.length, bytes.len())?;
            bytes[at..at + hole.length as usize].fill(0);
            *filled += hole.length as usize;
        }
        (REPLY_TYPE_BLOCK_STATUS, PartialReply::Status(status)) if length <= STATUS_BYTES_MAX => {
            let BlockStatus { context, descriptors } = BlockStatus::read(reader, length).await?;
            status.insert(context, descriptors);
        }
        (kind, _) if kind & REPLY_TYPE_FLAG_ERROR != 0 && length <= ERROR_BYTES_MAX => {
            let error = ErrorChunk::read(reader, length).await?;
            waiting.error = Some(if error.message.is_empty() { errno(error.errno) } else { error.message });
        }
        _ => return Err(Malformed("a chunk that is no answer to its request").into()),
    }
    Ok(())
}

/// Where in the answer a chunk belongs.
fn place(offset: u64, asked: u64, length: u32, answer_bytes: usize) -> Result<usize, Malformed> {
    offset
        .checked_sub(asked)
        .filter(|at| at + u64::from(length) <= answer_bytes as u64)
        .map(|at| at as usize)
        .ok_or(Malformed("a chunk outside of what was asked"))
}

/// NBD's error numbers are Linux's.
fn errno(code: u32) -> String {
    io::Error::from_raw_os_error(code.cast_signed()).to_string()
}
