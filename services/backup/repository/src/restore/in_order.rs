//! A stream of a snapshot, from its first byte to its last.

use std::ops::Range;
use std::sync::Arc;

use futures::{FutureExt, StreamExt, TryStreamExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::plan::{BlobPositions, BlobRef};
use super::{ReadError, RestoreError, fetch};
use crate::format::recipe::Piece;
use crate::format::snapshot::DiskRecord;
use crate::progress::Progress;
use crate::shared::Shared;

/// Chunks that are fetched in one go, so that their ranges are long.
const WINDOW_BYTES: u64 = 16 * 1024 * 1024;
/// Windows being fetched at one time: one is written while the next comes.
const WINDOWS_IN_FLIGHT: usize = 2;
/// Leaves read in one go; each names some 64 chunks of 1 MiB.
const LEAVES_AT_ONCE: usize = 16;

/// Writes the bytes `range` of a stream.
pub(super) async fn write(
    shared: &Arc<Shared>,
    record: &DiskRecord,
    range: Range<u64>,
    writer: &mut (dyn AsyncWrite + Send + Unpin),
    progress: &Arc<Progress>,
) -> Result<(), RestoreError> {
    let stream = fetch::stream(shared, record).await?;
    let mut at = 0;
    for leaves in stream.leaves.chunks(LEAVES_AT_ONCE) {
        let pieces = fetch::stream_leaves(shared, leaves).await?.concat();
        let mut wanted = Vec::new();
        for window in windows(&pieces) {
            let start = at;
            at += window.iter().map(|piece| u64::from(piece.bytes())).sum::<u64>();
            if start < range.end && at > range.start {
                wanted.push(fetched(shared, start, window).boxed());
            }
        }
        let mut fetched = futures::stream::iter(wanted).buffered(WINDOWS_IN_FLIGHT);
        while let Some((start, bytes)) = fetched.try_next().await? {
            let from = range.start.saturating_sub(start).min(bytes.len() as u64) as usize;
            let to = (range.end - start).min(bytes.len() as u64) as usize;
            writer.write_all(&bytes[from..to]).await.map_err(RestoreError::WriteStream)?;
            progress.done((to - from) as u64);
        }
    }
    writer.flush().await.map_err(RestoreError::WriteStream)
}

/// Splits pieces into windows of at least one piece.
fn windows(pieces: &[Piece]) -> Vec<&[Piece]> {
    let mut windows = Vec::new();
    let (mut first, mut bytes) = (0, 0);
    for (index, piece) in pieces.iter().enumerate() {
        bytes += u64::from(piece.bytes());
        if bytes >= WINDOW_BYTES || index + 1 == pieces.len() {
            windows.push(&pieces[first..=index]);
            (first, bytes) = (index + 1, 0);
        }
    }
    windows
}

/// The bytes of a window that begins at `start` of the stream.
async fn fetched(shared: &Arc<Shared>, start: u64, window: &[Piece]) -> Result<(u64, Vec<u8>), ReadError> {
    let mut places = BlobPositions::default();
    let mut length = 0;
    for piece in window {
        if let Piece::Chunk { id, bytes } = piece {
            places.entry(BlobRef::chunk(*id, *bytes)).or_default().push(length);
        }
        length += u64::from(piece.bytes());
    }
    let mut bytes = vec![0; length as usize];
    for (wanted_at, content) in fetch::many(shared, places).await? {
        for at in wanted_at {
            bytes[at as usize..at as usize + content.len()].copy_from_slice(&content);
        }
    }
    Ok((start, bytes))
}
