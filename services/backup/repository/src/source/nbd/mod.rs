//! A disk behind an NBD server: QEMU's, of a running machine or of an image file.
//!
//! Promises: many requests in flight on one connection, each with a deadline; a server that hangs, lies or dies ends
//! the reading with an error; a map of changes that was asked for and is not there is refused, never ignored.
//!
//! ```text
//!   connect ─ handshake ─> [ writer task ] ──requests──> server
//!                                                          │
//!   extents, read_at ──slot──> pending by cookie <── [ reader task ] <──replies
//! ```
//!
//! Spoken are the fixed newstyle handshake, structured replies, `base:allocation` and QEMU's dirty bitmaps; a server
//! without structured replies is read whole. There is no TLS: the connection is a Unix socket, or stays inside a
//! host or tunnel. A lost connection is not made again here: a backup that begins anew stores nothing twice.

mod connection;
mod handshake;
mod settings;
mod status;
mod wire;

use std::ops::Range;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::TryStreamExt;

use super::{DiskSource, Extent, SourceError};

use self::connection::Connection;
pub use self::settings::{NbdAddress, NbdSettings, NotAnNbdUri};

/// One read asks for no more: servers refuse more than 32 MiB, and smaller answers flow better.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

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
    pub async fn connect(settings: &NbdSettings) -> Result<NbdSource, SourceError> {
        let what = settings.to_string();
        let agreed = tokio::time::timeout(settings.connect_timeout, handshake::connect(settings));
        let (export, reader, writer) = agreed.await.map_err(|_| SourceError::TimedOut {
            attempt: "connect to",
            what: what.clone(),
            seconds: settings.connect_timeout.as_secs_f32(),
        })??;
        let connection = Connection::start(what, settings, reader, writer);
        Ok(NbdSource { connection, export })
    }

    /// Whether the server says which bytes changed.
    pub fn has_change_map(&self) -> bool {
        self.export.dirty_context.is_some()
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

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes, SourceError> {
        let step = READ_BYTES_MAX.min(self.export.read_bytes_max as usize);
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
