//! Carries out a granted request on the disk, and answers it.

use std::error::Error;

use backup_repository::SourceError;
use backup_repository::nbd_wire::*;
use backup_repository::source::{Extent, ExtentKind};
use bytes::Bytes;

use super::export::Export;
use super::reply::{self, ClientGone, ReplyDone, ReplySender};
use super::request::Command;
use crate::overlay::{Overlay, OverlayError, ZeroWriteMode};

/// A structured answer comes in chunks of no more: the client can begin with the first while the next is read.
const CHUNK_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Shorter reads are sent whole: some zeros cost less than finding the holes.
const FIND_HOLES_FROM_BYTES: u32 = 64 * 1024;
/// One answer covers no more of the disk, however much was requested: its map must fit into memory.
const STATUS_RANGE_BYTES_MAX: u64 = 1 << 30;
/// One answer names no more extents; the client asks again from where it ends.
const DESCRIPTORS_MAX: usize = 16 * 1024;

/// What a request holds in memory at most while it is worked on.
pub(super) fn cost_bytes(command: Command, length: u32) -> u32 {
    match command {
        Command::Read { .. } | Command::Write { .. } => length,
        Command::Cache => CHUNK_BYTES_MAX as u32,
        // A map of a gibibyte in pieces of 4 KiB.
        Command::BlockStatus { .. } => 8 * 1024 * 1024,
        Command::WriteZeroes { .. } | Command::Trim { .. } | Command::Flush | Command::Disconnect => 0,
    }
}

/// A request failed on the disk.
pub(super) struct RequestFailure {
    errno: u32,
    why: String,
}

impl From<SourceError> for RequestFailure {
    fn from(error: SourceError) -> RequestFailure {
        RequestFailure { errno: EIO, why: with_causes(&error) }
    }
}

impl From<OverlayError> for RequestFailure {
    fn from(error: OverlayError) -> RequestFailure {
        RequestFailure { errno: if error.is_out_of_space() { ENOSPC } else { EIO }, why: with_causes(&error) }
    }
}

fn with_causes(error: &dyn Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", with_causes(cause)),
        None => error.to_string(),
    }
}

/// Why a request could not be carried out or answered.
pub(super) enum RequestError {
    Failed(RequestFailure),
    ClientGone,
}

impl From<ClientGone> for RequestError {
    fn from(ClientGone: ClientGone) -> RequestError {
        RequestError::ClientGone
    }
}

impl<E: Into<RequestFailure>> From<E> for RequestError {
    fn from(error: E) -> RequestError {
        RequestError::Failed(error.into())
    }
}

/// A granted request with all it needs.
pub(super) struct GrantedRequest {
    pub(super) export: Export,
    pub(super) structured: bool,
    pub(super) request: Request,
    pub(super) command: Command,
    /// The data of a write.
    pub(super) payload: Bytes,
    pub(super) replies: ReplySender,
}

impl GrantedRequest {
    /// Carries it out and answers.
    pub(super) async fn run(self) {
        let outcome = match self.command {
            Command::Read { whole } if self.structured => self.read_structured(whole).await,
            Command::Read { .. } => self.read_simple().await,
            Command::BlockStatus { one } => self.block_status(one).await,
            Command::Cache => self.cache().await,
            Command::Write { durable } => self.change(durable).await,
            Command::WriteZeroes { durable, .. } | Command::Trim { durable } => self.change(durable).await,
            Command::Flush => self.change(true).await,
            Command::Disconnect => Ok(()),
        };
        if let Err(RequestError::Failed(RequestFailure { errno, why })) = outcome {
            tracing::warn!(export = self.export.name(), request = ?self.request, why, "a request failed");
            // When the client is gone, nobody waits for the answer.
            let _ = self.refuse(errno, &why).await;
        }
    }

    /// Answers with an error.
    pub(super) async fn refuse(&self, errno: u32, why: &str) -> Result<(), ClientGone> {
        let cookie = self.request.cookie;
        let reply = match self.structured {
            true => reply::error(cookie, errno, why),
            false => reply::simple(cookie, errno, Bytes::new()),
        };
        self.replies.send(reply).await
    }

    async fn acknowledge(&self) -> Result<(), RequestError> {
        let cookie = self.request.cookie;
        let reply = match self.structured {
            true => reply::done(cookie),
            false => reply::simple(cookie, 0, Bytes::new()),
        };
        Ok(self.replies.send(reply).await?)
    }

    async fn read(&self, offset: u64, length: usize) -> Result<Bytes, RequestError> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let bytes = self.export.disk.read_at(offset, length).await?;
        if bytes.len() != length {
            let why = format!("a read of {length} bytes at {offset} gave {}", bytes.len());
            return Err(RequestError::Failed(RequestFailure { errno: EIO, why }));
        }
        Ok(bytes)
    }

    async fn read_simple(&self) -> Result<(), RequestError> {
        let Request { cookie, offset, length, .. } = self.request;
        let bytes = self.read(offset, length as usize).await?;
        Ok(self.replies.send(reply::simple(cookie, 0, bytes)).await?)
    }

    async fn read_structured(&self, whole: bool) -> Result<(), RequestError> {
        let Request { cookie, offset, length, .. } = self.request;
        if length == 0 {
            return self.acknowledge().await;
        }
        if whole || length < FIND_HOLES_FROM_BYTES {
            let bytes = self.read(offset, length as usize).await?;
            return Ok(self.replies.send(reply::data(cookie, offset, bytes, ReplyDone::Yes)).await?);
        }
        let end = offset + u64::from(length);
        let mut at = offset;
        for (length, kind) in self.extents(offset, end).await? {
            let extent_end = at + length;
            while at < extent_end {
                let here = match kind {
                    ExtentKind::Zero => extent_end - at,
                    ExtentKind::Data => (extent_end - at).min(CHUNK_BYTES_MAX),
                };
                let last = if at + here == end { ReplyDone::Yes } else { ReplyDone::No };
                let reply = match kind {
                    ExtentKind::Zero => reply::hole(cookie, at, here as u32, last),
                    ExtentKind::Data => reply::data(cookie, at, self.read(at, here as usize).await?, last),
                };
                self.replies.send(reply).await?;
                at += here;
            }
        }
        Ok(())
    }

    /// Extents of the disk that are exactly the range, neighbours of a kind joined.
    async fn extents(&self, offset: u64, end: u64) -> Result<Vec<(u64, ExtentKind)>, RequestError> {
        let found = self.export.disk.extents(offset..end).await?;
        let joined = joined(&found);
        if joined.iter().map(|(length, _)| length).sum::<u64>() != end - offset {
            let why = format!("the map of {offset}..{end} does not cover it");
            return Err(RequestError::Failed(RequestFailure { errno: EIO, why }));
        }
        Ok(joined)
    }

    async fn block_status(&self, one: bool) -> Result<(), RequestError> {
        let Request { cookie, offset, length, .. } = self.request;
        let end = offset + u64::from(length).min(STATUS_RANGE_BYTES_MAX);
        let extents = self.extents(offset, end).await?;
        let state = |kind| if kind == ExtentKind::Zero { STATE_HOLE | STATE_ZERO } else { 0 };
        let descriptors = extents
            .into_iter()
            .take(if one { 1 } else { DESCRIPTORS_MAX })
            .map(|(length, kind)| (length as u32, state(kind)))
            .collect();
        Ok(self.replies.send(reply::block_status(cookie, descriptors)).await?)
    }

    /// Writes, and waits for the disk where the request says so.
    async fn change(&self, durable: bool) -> Result<(), RequestError> {
        if let Some(overlay) = &self.export.overlay {
            self.write(overlay).await?;
            if durable {
                overlay.flush().await?;
            }
        }
        self.acknowledge().await
    }

    async fn write(&self, overlay: &Overlay) -> Result<(), OverlayError> {
        let (offset, length) = (self.request.offset, u64::from(self.request.length));
        match self.command {
            Command::Write { .. } => overlay.write_at(offset, self.payload.clone()).await,
            Command::WriteZeroes { allocate, .. } => {
                let holes = if allocate { ZeroWriteMode::Allocated } else { ZeroWriteMode::Sparse };
                overlay.write_zeroes(offset, length, holes).await
            }
            Command::Trim { .. } => overlay.trim(offset, length).await,
            _ => Ok(()),
        }
    }

    /// Reads and sends nothing: the caches below the disk keep what was read.
    async fn cache(&self) -> Result<(), RequestError> {
        let Request { offset, length, .. } = self.request;
        let end = offset + u64::from(length);
        let mut at = offset;
        while at < end {
            let here = (end - at).min(CHUNK_BYTES_MAX);
            self.read(at, here as usize).await?;
            at += here;
        }
        self.acknowledge().await
    }
}

fn joined(extents: &[Extent]) -> Vec<(u64, ExtentKind)> {
    let mut joined: Vec<(u64, ExtentKind)> = Vec::new();
    for extent in extents.iter().filter(|extent| extent.length > 0) {
        match joined.last_mut() {
            Some((length, kind)) if *kind == extent.kind => *length += extent.length,
            _ => joined.push((extent.length, extent.kind)),
        }
    }
    joined
}
