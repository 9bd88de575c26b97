//! Requests: 28 bytes, and after those of a write its data.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::{CMD_WRITE, Malformed, REQUEST_MAGIC};

/// A request, not yet checked against any disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// `CMD_FLAG_…`.
    pub flags: u16,
    /// `CMD_…`.
    pub command: u16,
    /// Chosen by the client; the reply carries it.
    pub cookie: u64,
    /// First byte of the disk that is meant.
    pub offset: u64,
    /// Bytes of the disk that are meant.
    pub length: u32,
}

impl Request {
    /// Length of a request without the data of a write.
    pub const BYTES: usize = 28;

    /// As it is sent.
    pub fn encode(&self) -> [u8; Request::BYTES] {
        let mut bytes = [0; Request::BYTES];
        bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.flags.to_be_bytes());
        bytes[6..8].copy_from_slice(&self.command.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }

    /// Reads a request up to the data of a write.
    ///
    /// # Errors
    /// When reading fails, or what comes is no request: then nobody knows where the next one begins.
    pub async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Request> {
        if reader.read_u32().await? != REQUEST_MAGIC {
            return Err(Malformed("a request without its magic number").into());
        }
        Ok(Request {
            flags: reader.read_u16().await?,
            command: reader.read_u16().await?,
            cookie: reader.read_u64().await?,
            offset: reader.read_u64().await?,
            length: reader.read_u32().await?,
        })
    }

    /// Bytes of data that follow, whether or not the request is granted.
    pub fn payload_bytes(&self) -> u32 {
        if self.command == CMD_WRITE { self.length } else { 0 }
    }
}
