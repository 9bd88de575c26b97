//! Reads replies and completes the requests that wait for them.

use std::io;
use std::sync::{Arc, Mutex};

use tokio::io::AsyncReadExt;

use super::connection::{Answer, Failure, Pending, Waiting, lock};
use super::handshake::Reader;
use super::wire::*;

/// A block status answer with more descriptors than this (8 MiB) is not valid.
const STATUS_BYTES_MAX: u32 = 8 * 1024 * 1024;
/// An error message longer than this is not valid.
const ERROR_BYTES_MAX: u32 = 8 * 1024;

/// Reads replies until the connection breaks; then everything that waits fails.
pub(super) async fn read_all(mut reader: Reader, pending: Arc<Mutex<Pending>>) {
    loop {
        if let Err(error) = read_reply(&mut reader, &pending).await {
            lock(&pending).fail(&error.to_string());
            return;
        }
    }
}

fn nonsense(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Reads one simple reply or one chunk of a structured one.
async fn read_reply(reader: &mut Reader, pending: &Mutex<Pending>) -> io::Result<()> {
    match reader.read_u32().await? {
        SIMPLE_REPLY_MAGIC => {
            let error = reader.read_u32().await?;
            let mut waiting = take(pending, reader.read_u64().await?)?;
            if error != 0 {
                waiting.error = Some(errno(error));
            } else if let Answer::Read { bytes, filled } = &mut waiting.answer {
                reader.read_exact(bytes).await?;
                *filled = bytes.len();
            }
            finish(waiting);
            Ok(())
        }
        STRUCTURED_REPLY_MAGIC => {
            let flags = reader.read_u16().await?;
            let kind = reader.read_u16().await?;
            let cookie = reader.read_u64().await?;
            let length = reader.read_u32().await?;
            let mut waiting = take(pending, cookie)?;
            read_chunk(reader, kind, length, &mut waiting).await?;
            if flags & CHUNK_FLAG_DONE == 0 {
                lock(pending).waiting.insert(cookie, waiting);
            } else {
                finish(waiting);
            }
            Ok(())
        }
        _ => Err(nonsense("a reply began with the wrong number")),
    }
}

fn take(pending: &Mutex<Pending>, cookie: u64) -> io::Result<Waiting> {
    lock(pending).waiting.remove(&cookie).ok_or_else(|| nonsense("a reply to nothing that was asked"))
}

fn finish(waiting: Waiting) {
    let outcome = match waiting.error {
        Some(why) => Err(Failure::Refused(why)),
        None => Ok(waiting.answer),
    };
    // Whoever asked may have gone.
    let _ = waiting.done.send(outcome);
}

async fn read_chunk(reader: &mut Reader, kind: u16, length: u32, waiting: &mut Waiting) -> io::Result<()> {
    match (kind, &mut waiting.answer) {
        (CHUNK_NONE, _) if length == 0 => Ok(()),
        (CHUNK_OFFSET_DATA, Answer::Read { bytes, filled }) if length >= 8 => {
            let at = place(reader.read_u64().await?, waiting.offset, length - 8, bytes.len())?;
            reader.read_exact(&mut bytes[at..at + length as usize - 8]).await?;
            *filled += length as usize - 8;
            Ok(())
        }
        (CHUNK_OFFSET_HOLE, Answer::Read { bytes, filled }) if length == 12 => {
            let offset = reader.read_u64().await?;
            let hole = reader.read_u32().await?;
            let at = place(offset, waiting.offset, hole, bytes.len())?;
            bytes[at..at + hole as usize].fill(0);
            *filled += hole as usize;
            Ok(())
        }
        (CHUNK_BLOCK_STATUS, Answer::Status(status)) if length % 8 == 4 && length <= STATUS_BYTES_MAX => {
            let context = reader.read_u32().await?;
            let mut raw = vec![0; length as usize - 4];
            reader.read_exact(&mut raw).await?;
            let field = |b: &[u8]| u32::from_be_bytes(*b.first_chunk().expect("chunks of 8 hold 4"));
            let descriptors = raw.chunks_exact(8).map(|d| (field(d), field(&d[4..]))).collect();
            status.insert(context, descriptors);
            Ok(())
        }
        (kind, _) if kind & CHUNK_FLAG_ERROR != 0 && (6..=ERROR_BYTES_MAX).contains(&length) => {
            let code = reader.read_u32().await?;
            let mut rest = vec![0; length as usize - 4];
            reader.read_exact(&mut rest).await?;
            let said = u16::from_be_bytes([rest[0], rest[1]]) as usize;
            let message = String::from_utf8_lossy(rest[2..].get(..said).unwrap_or_default()).into_owned();
            waiting.error = Some(if message.is_empty() { errno(code) } else { message });
            Ok(())
        }
        _ => Err(nonsense("a chunk of a reply makes no sense")),
    }
}

/// Where in the answer a chunk belongs.
fn place(offset: u64, asked: u64, length: u32, answer_bytes: usize) -> io::Result<usize> {
    offset
        .checked_sub(asked)
        .filter(|at| at + u64::from(length) <= answer_bytes as u64)
        .map(|at| at as usize)
        .ok_or_else(|| nonsense("a chunk is outside of the requested range"))
}

/// NBD's error numbers are Linux's.
fn errno(code: u32) -> String {
    io::Error::from_raw_os_error(code.cast_signed()).to_string()
}
