//! A disk, or a part of one, in order: to a pipe, a socket, anything that is written from front to back.
//!
//! Parts are read ahead of what is written, as many as the memory allows; they are written in order.

use std::ops::Range;
use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tracing::instrument;

use super::reader::ReaderSettings;
use super::{ReadError, RestoreError, Snapshot, in_order};
use crate::Cancel;
use crate::format::snapshot::RecordKind;
use crate::progress::Progress;
use crate::repository::Repository;
use crate::source::DiskSource;

/// What is read in one go: enough that its chunks lie in few long ranges.
const PART_BYTES: u64 = 4 * 1024 * 1024;

impl Repository {
    /// Writes the bytes `range` of a disk or stream to `writer` in order, zeros for holes, and flushes it. The whole disk is
    /// `0..size_bytes` of its record.
    ///
    /// # Errors
    /// When the disk is unknown or not that long, content is damaged, the store or the writer fails, or it is
    /// cancelled.
    #[instrument(name = "repository.restore_stream", skip_all, fields(snapshot = %snapshot.id, disk = disk_name))]
    pub async fn restore_stream(
        &self,
        snapshot: &Snapshot,
        disk_name: &str,
        range: Range<u64>,
        writer: &mut (dyn AsyncWrite + Send + Unpin),
        progress: &Arc<Progress>,
        cancel: &Cancel,
    ) -> Result<(), RestoreError> {
        tokio::select! {
            biased;
            () = cancel.cancelled() => Err(RestoreError::Cancelled),
            done = self.stream_all(snapshot, disk_name, range, writer, progress).boxed() => done,
        }
    }

    async fn stream_all(
        &self,
        snapshot: &Snapshot,
        disk_name: &str,
        range: Range<u64>,
        writer: &mut (dyn AsyncWrite + Send + Unpin),
        progress: &Arc<Progress>,
    ) -> Result<(), RestoreError> {
        if let Some(record) = snapshot.disk(disk_name)
            && record.kind == RecordKind::Stream
        {
            check_range(&range, record.size_bytes)?;
            // The snapshot may be younger than our index.
            self.refresh().await.map_err(ReadError::Index)?;
            progress.expect_bytes(range.end - range.start);
            return in_order::write(&self.shared, record, range, writer, progress).await;
        }
        let cache_bytes_max = self.shared.settings.reader_bytes();
        let settings = ReaderSettings { cache_bytes_max, read_ahead_bytes_max: 0 };
        let disk = self.open_disk_with(snapshot, disk_name, settings).await?;
        check_range(&range, disk.size_bytes())?;
        progress.expect_bytes(range.end - range.start);
        let parts = range.start / PART_BYTES..range.end.div_ceil(PART_BYTES);
        let mut parts = futures::stream::iter(parts)
            .map(|part| {
                let start = range.start.max(part * PART_BYTES);
                let end = range.end.min((part + 1) * PART_BYTES);
                disk.read_at(start, (end - start) as usize)
            })
            .buffered(self.shared.settings.parts_in_flight(PART_BYTES as usize));
        while let Some(bytes) = parts.try_next().await.map_err(RestoreError::Source)? {
            writer.write_all(&bytes).await.map_err(RestoreError::WriteStream)?;
            progress.done(bytes.len() as u64);
        }
        writer.flush().await.map_err(RestoreError::WriteStream)
    }
}

fn check_range(range: &Range<u64>, size_bytes: u64) -> Result<(), RestoreError> {
    if range.start <= range.end && range.end <= size_bytes {
        Ok(())
    } else {
        Err(RestoreError::Range { range: range.clone(), size_bytes })
    }
}
