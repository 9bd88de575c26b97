//! Blobs: chunks of disks and pieces of recipes, named by their content.
//!
//! ```text
//!   kind       0 chunk, 1 leaf, 2 page, 3 disk, 4 stream
//!   id 32      keyed BLAKE3 of the content, under the id key of its kind
//!   encoding   0 | content          as it is
//!              1 | zstd frame       where that is shorter by 4 % or more
//! ```
//!
//! A content is no longer than 4 MiB, and a reader knows its length before it decompresses.

use crate::compression::Compression;
use crate::damage::Damage;
use crate::ids::{BlobId, BlobKind};
use crate::keys::Keys;

/// No blob is longer; a reader refuses more before it allocates.
pub(crate) const BLOB_BYTES_MAX: usize = 4 * 1024 * 1024;

const RAW: u8 = 0;
const ZSTD: u8 = 1;

/// The encoding of a blob before encryption: one byte for the compression, then the content. `room` more bytes can be
/// appended without reallocation.
pub(crate) fn encode(content: &[u8], compression: Compression, room: usize) -> Vec<u8> {
    let bound = compression.bound(content.len());
    let mut text = vec![0; 1 + bound + room];
    match compression.compress(content, &mut text[1..=bound]) {
        Some(frame_bytes) => {
            text[0] = ZSTD;
            text.truncate(1 + frame_bytes);
        }
        None => {
            text[0] = RAW;
            text[1..=content.len()].copy_from_slice(content);
            text.truncate(1 + content.len());
        }
    }
    text
}

/// Undoes [`encode`] and checks the content against its id.
pub(crate) fn decode(
    keys: &Keys,
    kind: BlobKind,
    id: BlobId,
    raw_bytes: usize,
    text: &[u8],
) -> Result<Vec<u8>, Damage> {
    let malformed = |why| Damage::Malformed { what: kind.name(), why };
    if raw_bytes > BLOB_BYTES_MAX {
        return Err(malformed("it is longer than any blob"));
    }
    let content = match text.split_first() {
        Some((&RAW, body)) => body.to_vec(),
        Some((&ZSTD, body)) => {
            zstd::bulk::decompress(body, raw_bytes).map_err(|_| malformed("it cannot be decompressed"))?
        }
        _ => return Err(malformed("its encoding is unknown")),
    };
    if content.len() != raw_bytes || keys.id(kind, &content) != id {
        return Err(Damage::WrongContent { id });
    }
    Ok(content)
}
