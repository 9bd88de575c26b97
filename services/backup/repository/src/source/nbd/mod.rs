//! A disk behind an NBD server: QEMU's, of a running machine or of an image file.
//!
//! Promises: many requests in flight on one connection, each with a deadline; a server that hangs, violates the protocol or
//! dies ends the reading with an error; a dirty bitmap that was asked for and is not there is refused, never ignored.
//!
//! ```text
//!   connect ─ handshake ─> [ writer task ] ──requests──> server
//!                                                          │
//!   extents, read_at ──slot──> pending by cookie <── [ reader task ] <──replies
//! ```
//!
//! It writes, too, for a restore whose target is behind such a server. Spoken are the fixed newstyle handshake, structured replies, `base:allocation` and QEMU's dirty bitmaps; a server
//! without structured replies is read whole. There is no TLS: the connection is a Unix socket, or stays inside a
//! host or tunnel. A lost connection is not reopened here: a backup that is started again stores nothing twice.

mod connection;
mod handshake;
mod replies;
mod settings;
mod status;

use std::ops::Range;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::TryStreamExt;

use super::{DiskSource, Extent, SourceError};

use self::connection::Connection;
use self::settings::FLUSH_TIMEOUT;
pub use self::settings::{NbdAddress, NbdExportSettings, NotAnNbdUri};
use crate::nbd_wire::{FLAG_READ_ONLY, FLAG_SEND_FLUSH, FLAG_SEND_WRITE_ZEROES};

/// One request carries no more: servers refuse more than 32 MiB, and smaller ones flow better.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Zeros carry nothing; all servers take this many at once.
const ZERO_BYTES_MAX: u64 = 1 << 30;

/// A connection to one export.
#[derive(Debug)]
pub struct NbdSource {
    connection: Connection,
    export: handshake::Export,
}

impl NbdSource {
    /// Connects and agrees with the server on an export.
    ///
    /// # Errors
    /// When the server is not there, does not answer in time, does not know the export, or has no such map of
    /// changes.
    pub async fn connect(settings: &NbdExportSettings) -> Result<NbdSource, SourceError> {
        NbdSource::within(settings, handshake::connect(settings)).await
    }

    /// Agrees with the server at the other end of a connection that somebody else made. The address in the settings is
    /// for error messages only.
    ///
    /// # Errors
    /// As [`NbdSource::connect`].
    pub async fn on_stream(
        stream: std::os::unix::net::UnixStream,
        settings: &NbdExportSettings,
    ) -> Result<NbdSource, SourceError> {
        NbdSource::within(settings, handshake::on_stream(settings, stream)).await
    }

    async fn within(
        settings: &NbdExportSettings,
        agreeing: impl Future<Output = Result<handshake::Agreed, SourceError>>,
    ) -> Result<NbdSource, SourceError> {
        let what = settings.to_string();
        let agreed = tokio::time::timeout(settings.connect_timeout, agreeing);
        let (export, reader, writer) = agreed.await.map_err(|_| SourceError::TimedOut {
            attempt: "connect to",
            what: what.clone(),
            seconds: settings.connect_timeout.as_secs_f32(),
        })??;
        let connection = Connection::start(what, settings, reader, writer);
        Ok(NbdSource { connection, export })
    }

    /// Whether the server says which bytes changed.
    pub fn has_dirty_bitmap(&self) -> bool {
        self.export.dirty_bitmap_context.is_some()
    }

    /// Whether any byte can be written.
    pub(crate) fn is_writable(&self) -> bool {
        self.export.flags & FLAG_READ_ONLY == 0
            && self.export.flags & FLAG_SEND_FLUSH != 0
            && self.export.block_bytes_min == 1
    }

    pub(crate) async fn write_at(&self, offset: u64, bytes: Bytes) -> Result<(), SourceError> {
        let step = self.step();
        let parts = (0..bytes.len()).step_by(step).map(|at| {
            let part = bytes.slice(at..bytes.len().min(at + step));
            self.connection.write(offset + at as u64, part)
        });
        futures::future::try_join_all(parts).await.map(drop)
    }

    /// Makes a range read as zeros; the server may unmap it.
    pub(crate) async fn zero(&self, range: Range<u64>) -> Result<(), SourceError> {
        let can = self.export.flags & FLAG_SEND_WRITE_ZEROES != 0;
        let step = if can { ZERO_BYTES_MAX } else { self.step() as u64 };
        let mut at = range.start;
        while at < range.end {
            let length = step.min(range.end - at);
            if can {
                self.connection.write_zeroes(at, length as u32).await?;
            } else {
                self.connection.write(at, Bytes::from(vec![0; length as usize])).await?;
            }
            at += length;
        }
        Ok(())
    }

    /// Puts all that was written on stable storage.
    pub(crate) async fn flush(&self) -> Result<(), SourceError> {
        match tokio::time::timeout(FLUSH_TIMEOUT, self.connection.flush()).await {
            Ok(flushed) => flushed,
            Err(_) => Err(self.connection.timed_out("flush", FLUSH_TIMEOUT)),
        }
    }

    fn step(&self) -> usize {
        REQUEST_BYTES_MAX.min(self.export.block_bytes_max as usize)
    }

    async fn read_aligned(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        let step = self.step();
        if length <= step {
            return self.connection.read(offset, length as u32).await;
        }
        let parts = (0..length)
            .step_by(step)
            .map(|at| self.connection.read(offset + at as u64, step.min(length - at) as u32));
        // The connection bounds how many of them are in flight.
        futures::stream::iter(parts.collect::<Vec<_>>())
            .buffered(length.div_ceil(step))
            .try_fold(BytesMut::with_capacity(length), async |mut whole, part| {
                whole.extend_from_slice(&part);
                Ok(whole)
            })
            .await
            .map(BytesMut::freeze)
    }
}

#[async_trait]
impl DiskSource for NbdSource {
    fn size_bytes(&self) -> u64 {
        self.export.size_bytes
    }

    async fn extents(&self, range: Range<u64>) -> Result<Vec<Extent>, SourceError> {
        status::extents(&self.connection, &self.export, range).await
    }

    /// Some servers read only whole blocks; then more is read, and cut.
    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        let block = u64::from(self.export.block_bytes_min);
        let start = offset - offset % block;
        let end = (offset + length as u64).next_multiple_of(block).min(self.export.size_bytes);
        let bytes = self.read_aligned(start, (end - start) as usize).await?;
        let at = (offset - start) as usize;
        Ok(bytes.slice(at..at + length))
    }
}
