//! Replies: simple ones, and the chunks of structured ones.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::{Malformed, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC};

/// What a reply begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyHeader {
    /// A whole reply.
    Simple(SimpleReply),
    /// One chunk of a reply.
    Chunk(ReplyChunkHeader),
}

/// A reply without structure; after a read without an error its data follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SimpleReply {
    /// Error number, or 0.
    pub errno: u32,
    /// Of the request.
    pub cookie: u64,
}

/// The header of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyChunkHeader {
    /// `REPLY_FLAG_…`.
    pub flags: u16,
    /// `REPLY_TYPE_…`.
    pub kind: u16,
    /// Of the request.
    pub cookie: u64,
    /// Bytes of payload that follow.
    pub length: u32,
}

/// Payload of `REPLY_TYPE_OFFSET_HOLE`: a part of the disk that reads as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoleChunk {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u32,
}

/// Length and state of a part of the disk: `STATE_…`.
pub type Descriptor = (u32, u32);

/// Payload of `REPLY_TYPE_BLOCK_STATUS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockStatus {
    /// The context's id, which the server chose in the handshake.
    pub context: u32,
    /// What lies from the request's offset on, in order.
    pub descriptors: Vec<Descriptor>,
}

/// Payload of an error chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorChunk {
    /// Error number.
    pub errno: u32,
    /// For people; may be empty.
    pub message: String,
}

impl ReplyHeader {
    /// Reads a simple reply or the header of a chunk.
    ///
    /// # Errors
    /// When reading fails, or what comes is neither.
    pub async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<ReplyHeader> {
        match reader.read_u32().await? {
            SIMPLE_REPLY_MAGIC => Ok(ReplyHeader::Simple(SimpleReply {
                errno: reader.read_u32().await?,
                cookie: reader.read_u64().await?,
            })),
            STRUCTURED_REPLY_MAGIC => Ok(ReplyHeader::Chunk(ReplyChunkHeader {
                flags: reader.read_u16().await?,
                kind: reader.read_u16().await?,
                cookie: reader.read_u64().await?,
                length: reader.read_u32().await?,
            })),
            _ => Err(Malformed("a reply without a known magic number").into()),
        }
    }
}

impl SimpleReply {
    /// As it is sent.
    pub fn encode(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&SIMPLE_REPLY_MAGIC.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.errno.to_be_bytes());
        bytes[8..].copy_from_slice(&self.cookie.to_be_bytes());
        bytes
    }
}

impl ReplyChunkHeader {
    /// As it is sent.
    pub fn encode(&self) -> [u8; 20] {
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&STRUCTURED_REPLY_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.kind.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }
}

impl HoleChunk {
    /// Length of the payload.
    pub const BYTES: u32 = 12;

    /// As it is sent.
    pub fn encode(&self) -> [u8; HoleChunk::BYTES as usize] {
        let mut bytes = [0; HoleChunk::BYTES as usize];
        bytes[..8].copy_from_slice(&self.offset.to_be_bytes());
        bytes[8..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// When reading fails.
    pub async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<HoleChunk> {
        Ok(HoleChunk { offset: reader.read_u64().await?, length: reader.read_u32().await? })
    }
}

impl BlockStatus {
    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(4 + 8 * self.descriptors.len());
        bytes.extend(self.context.to_be_bytes());
        for (length, state) in &self.descriptors {
            bytes.extend(length.to_be_bytes());
            bytes.extend(state.to_be_bytes());
        }
        bytes
    }

    /// Reads a payload of `length` bytes, which the caller has bounded.
    ///
    /// # Errors
    /// When reading fails, or no such payload has this length.
    pub async fn read(reader: &mut (impl AsyncRead + Unpin), length: u32) -> io::Result<BlockStatus> {
        if length % 8 != 4 {
            return Err(Malformed("a block status of an impossible length").into());
        }
        let context = reader.read_u32().await?;
        let mut bytes = vec![0; length as usize - 4];
        reader.read_exact(&mut bytes).await?;
        let (descriptors, _) = bytes.as_chunks::<8>();
        let descriptor = |[a, b, c, d, e, f, g, h]: &[u8; 8]| {
            (u32::from_be_bytes([*a, *b, *c, *d]), u32::from_be_bytes([*e, *f, *g, *h]))
        };
        Ok(BlockStatus { context, descriptors: descriptors.iter().map(descriptor).collect() })
    }
}

impl ErrorChunk {
    /// As it is sent. Of the message go at most 65,535 bytes.
    pub fn encode(&self) -> Vec<u8> {
        let message = &self.message[..self.message.floor_char_boundary(u16::MAX.into())];
        let mut bytes = self.errno.to_be_bytes().to_vec();
        bytes.extend((message.len() as u16).to_be_bytes());
        bytes.extend(message.as_bytes());
        bytes
    }

    /// Reads a payload of `length` bytes, which the caller has bounded. What other types of errors add is passed over.
    ///
    /// # Errors
    /// When reading fails, or no such payload has this length.
    pub async fn read(reader: &mut (impl AsyncRead + Unpin), length: u32) -> io::Result<ErrorChunk> {
        let Some(rest_bytes) = length.checked_sub(6) else {
            return Err(Malformed("an error of an impossible length").into());
        };
        let errno = reader.read_u32().await?;
        let message_bytes = usize::from(reader.read_u16().await?);
        let mut rest = vec![0; rest_bytes as usize];
        reader.read_exact(&mut rest).await?;
        let message = rest.get(..message_bytes).unwrap_or_default();
        Ok(ErrorChunk { errno, message: String::from_utf8_lossy(message).into_owned() })
    }
}
