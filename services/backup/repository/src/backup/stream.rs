//! Copies one byte stream: cut in order, stored many chunks at a time.
//!
//! Where a stream is cut depends on its bytes alone, so a dump that begins like yesterday's, or has something inserted,
//! shares all other chunks with it. Leaves end where a chunk's id says so, for the same reason.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::CopyDisksError;
use super::session::Session;
use crate::format::blob::BLOB_BYTES_MAX;
use crate::format::recipe::{self, Piece};
use crate::format::snapshot::{DiskRecord, RecordKind};
use crate::format::stream::StreamRecipe;
use crate::ids::{BlobId, BlobKind};
use crate::progress::raise;

/// Bytes to back up from the first to the last.
pub type StreamSource = Box<dyn AsyncRead + Send + Sync + Unpin>;

/// A leaf ends after a chunk whose id begins with this many zero bits, 64 chunks on average.
const LEAF_END_BITS: u32 = 6;
/// A leaf has no more chunks than this, whatever their ids.
const LEAF_CHUNKS_MAX: usize = 1024;

/// What is read and not yet cut.
struct StreamChunker {
    source: StreamSource,
    buffer: BytesMut,
    ended: bool,
}

impl StreamChunker {
    /// The next chunk, `None` after the last.
    async fn next(&mut self, session: &Arc<Session>) -> std::io::Result<Option<Bytes>> {
        let chunking = session.shared.config.stream_chunking;
        while !self.ended && self.buffer.len() <= chunking.chunk_bytes_max() {
            self.buffer.reserve(BLOB_BYTES_MAX);
            self.ended = self.source.read_buf(&mut self.buffer).await? == 0;
        }
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let seed = session.keys.chunker_seed();
        let (buffer, chunk) = session
            .work(move |_| {
                let end = chunking.next_cut(seed, &buffer).min(buffer.len());
                let chunk = buffer.split_to(end).freeze();
                (buffer, chunk)
            })
            .await;
        self.buffer = buffer;
        raise(&session.progress.read_bytes, chunk.len() as u64);
        Ok(Some(chunk))
    }
}

/// Stores a stream and returns its record.
pub(super) async fn copy(
    session: &Arc<Session>,
    name: &str,
    source: StreamSource,
) -> Result<DiskRecord, CopyDisksError> {
    let cutter = StreamChunker { source, buffer: BytesMut::new(), ended: false };
    let failed = |error| CopyDisksError::Stream { stream: name.to_owned(), source: error };
    let chunks = futures::stream::try_unfold(cutter, |mut cutter| async move {
        let chunk = cutter.next(session).await.map_err(failed)?;
        Ok::<_, CopyDisksError>(chunk.map(|chunk| (chunk, cutter)))
    });
    let stored = chunks
        .map_ok(|chunk| async move {
            let bytes = chunk.len() as u32;
            let id = session.work(move |session| session.store_blob(BlobKind::Chunk, &chunk)).await?;
            session.progress.done(u64::from(bytes));
            Ok::<_, CopyDisksError>((id, bytes))
        })
        .try_buffered(session.shared.settings.stream_chunks_in_flight());
    let mut stored = std::pin::pin!(stored.boxed());
    let mut stream = StreamRecipe { size_bytes: 0, leaves: Vec::new() };
    let mut pieces = Vec::new();
    while let Some((id, bytes)) = stored.try_next().await? {
        pieces.push(Piece::Chunk { id, bytes });
        if ends_leaf(&id) || pieces.len() >= LEAF_CHUNKS_MAX {
            end_leaf(session, &mut stream, std::mem::take(&mut pieces)).await?;
        }
    }
    end_leaf(session, &mut stream, pieces).await?;
    let (size_bytes, root) = (stream.size_bytes, stream.encode());
    if root.len() > BLOB_BYTES_MAX {
        return Err(CopyDisksError::StreamTooLong { stream: name.to_owned(), bytes: size_bytes });
    }
    let root = store(session, BlobKind::StreamRecipe, root).await?;
    Ok(DiskRecord {
        name: name.to_owned(),
        kind: RecordKind::Stream,
        size_bytes,
        used_bytes: size_bytes,
        grid_offset_bytes: 0,
        root,
    })
}

fn ends_leaf(id: &BlobId) -> bool {
    id.as_bytes()[0].leading_zeros() >= LEAF_END_BITS
}

async fn end_leaf(
    session: &Arc<Session>,
    stream: &mut StreamRecipe,
    pieces: Vec<Piece>,
) -> Result<(), CopyDisksError> {
    if pieces.is_empty() {
        return Ok(());
    }
    let bytes = pieces.iter().map(|piece| u64::from(piece.bytes())).sum();
    let leaf = store(session, BlobKind::RecipeLeaf, recipe::encode_leaf(&pieces)).await?;
    stream.size_bytes += bytes;
    stream.leaves.push((bytes, leaf));
    Ok(())
}

async fn store(session: &Arc<Session>, kind: BlobKind, content: Vec<u8>) -> Result<BlobId, CopyDisksError> {
    Ok(session.work(move |session| session.store_blob(kind, &content)).await?)
}
