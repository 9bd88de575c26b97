//! Recipes: how a disk is put together from chunks.
//!
//! ```text
//!   leaf   one segment:       ( 0 | length 4 )  hole   or   ( 1 | length 4 | chunk id 32 ) …
//!   page   many segments:     ( 0 )             hole   or   ( 1 | leaf id 32 ) …
//!   disk   "disk" | size 8 | segment bytes 4 | pages:  ( 0 ) hole   or   ( 1 | page id 32 ) …
//!   stream "strm" | size 8 | ( bytes 8 | leaf id 32 ) …     its leaves have no holes
//! ```
//!
//! Segments are as long as the disk's recipe says, the last may be short; a leaf covers its segment exactly. A page has
//! 1024 leaves, the last of a disk as many as are left. A hole reads as zeros, a page that is one has only holes. A leaf
//! of a stream covers as many bytes as the stream says beside its id.
//!
//! A recipe follows from the bytes of the disk and nothing else, so equal segments, pages and disks have equal
//! ids whatever way they were read.

use super::blob::BLOB_BYTES_MAX;
use super::stream::StreamRecipe;
use crate::cursor::Cursor;
use crate::damage::Damage;
use crate::ids::{BlobId, BlobKind};

/// Leaves in a page: a page of 4 MiB segments spans 4 GiB and is 33 KB long.
pub(crate) const LEAVES_PER_PAGE: usize = 1024;

const HOLE: u8 = 0;
const THING: u8 = 1;

/// One stretch of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Hole { bytes: u32 },
    Chunk { id: BlobId, bytes: u32 },
}

impl Piece {
    pub(crate) fn bytes(&self) -> u32 {
        match self {
            Piece::Hole { bytes } | Piece::Chunk { bytes, .. } => *bytes,
        }
    }
}

pub(crate) fn encode_leaf(pieces: &[Piece]) -> Vec<u8> {
    let mut out = Vec::with_capacity(pieces.len() * 37);
    for piece in pieces {
        match piece {
            Piece::Hole { bytes } => {
                out.push(HOLE);
                out.extend_from_slice(&bytes.to_le_bytes());
            }
            Piece::Chunk { id, bytes } => {
                out.push(THING);
                out.extend_from_slice(&bytes.to_le_bytes());
                out.extend_from_slice(id.as_bytes());
            }
        }
    }
    out
}

/// Reads a leaf that must cover exactly `segment_bytes`.
pub(crate) fn decode_leaf(text: &[u8], segment_bytes: u64) -> Result<Vec<Piece>, Damage> {
    let pieces = decode_pieces(text)?;
    let covered: u64 = pieces.iter().map(|piece| u64::from(piece.bytes())).sum();
    if covered == segment_bytes {
        Ok(pieces)
    } else {
        Err(Damage::Malformed { what: "leaf", why: "its pieces do not fit its segment" })
    }
}

/// Reads a leaf, whatever it covers.
fn decode_pieces(text: &[u8]) -> Result<Vec<Piece>, Damage> {
    let mut cursor = Cursor::new(text, "leaf");
    let mut pieces = Vec::with_capacity(text.len() / 37 + 1);
    while !cursor.is_empty() {
        let tag = cursor.u8()?;
        let bytes = cursor.u32()?;
        let piece = match tag {
            HOLE => Piece::Hole { bytes },
            THING if bytes as usize <= BLOB_BYTES_MAX => {
                Piece::Chunk { id: BlobId::from(cursor.array()?), bytes }
            }
            _ => return Err(cursor.malformed("a piece makes no sense")),
        };
        if bytes == 0 {
            return Err(cursor.malformed("a piece is empty"));
        }
        pieces.push(piece);
    }
    Ok(pieces)
}

/// Reads a leaf of a stream, which must cover exactly `bytes` and has no holes.
pub(crate) fn decode_stream_leaf(text: &[u8], bytes: u64) -> Result<Vec<Piece>, Damage> {
    let pieces = decode_leaf(text, bytes)?;
    if pieces.iter().any(|piece| matches!(piece, Piece::Hole { .. })) {
        return Err(Damage::Malformed { what: "leaf", why: "it is of a stream and has a hole" });
    }
    Ok(pieces)
}

fn write_ids(ids: &[Option<BlobId>], out: &mut Vec<u8>) {
    for id in ids {
        match id {
            None => out.push(HOLE),
            Some(id) => {
                out.push(THING);
                out.extend_from_slice(id.as_bytes());
            }
        }
    }
}

fn read_ids(cursor: &mut Cursor<'_>, expected: u64) -> Result<Vec<Option<BlobId>>, Damage> {
    let ids = read_any_ids(cursor)?;
    if ids.len() as u64 != expected {
        return Err(cursor.malformed("it does not have as many entries as it should"));
    }
    Ok(ids)
}

fn read_any_ids(cursor: &mut Cursor<'_>) -> Result<Vec<Option<BlobId>>, Damage> {
    let mut ids = Vec::new();
    while !cursor.is_empty() {
        ids.push(match cursor.u8()? {
            HOLE => None,
            THING => Some(BlobId::from(cursor.array()?)),
            _ => return Err(cursor.malformed("an entry makes no sense")),
        });
    }
    Ok(ids)
}

/// Every blob that a piece of a recipe names: for who asks what is needed, and not how long anything is.
pub(crate) fn named(kind: BlobKind, text: &[u8]) -> Result<Vec<BlobId>, Damage> {
    let chunk = |piece| match piece {
        Piece::Chunk { id, .. } => Some(id),
        Piece::Hole { .. } => None,
    };
    Ok(match kind {
        BlobKind::Chunk => Vec::new(),
        BlobKind::RecipeLeaf => decode_pieces(text)?.into_iter().filter_map(chunk).collect(),
        BlobKind::RecipePage => read_any_ids(&mut Cursor::new(text, "page"))?.into_iter().flatten().collect(),
        BlobKind::DiskRecipe => DiskRecipe::decode(text)?.pages.into_iter().flatten().collect(),
        BlobKind::StreamRecipe => {
            StreamRecipe::decode(text)?.leaves.into_iter().map(|(_, leaf)| leaf).collect()
        }
    })
}

pub(crate) fn encode_page(leaves: &[Option<BlobId>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(leaves.len() * 33);
    write_ids(leaves, &mut out);
    out
}

/// Reads a page that must have exactly `leaves` entries.
pub(crate) fn decode_page(text: &[u8], leaves: u64) -> Result<Vec<Option<BlobId>>, Damage> {
    read_ids(&mut Cursor::new(text, "page"), leaves)
}

/// The root of one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DiskRecipe {
    pub(crate) size_bytes: u64,
    pub(crate) segment_bytes: u32,
    pub(crate) pages: Vec<Option<BlobId>>,
}

impl DiskRecipe {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = b"disk".to_vec();
        out.extend_from_slice(&self.size_bytes.to_le_bytes());
        out.extend_from_slice(&self.segment_bytes.to_le_bytes());
        write_ids(&self.pages, &mut out);
        out
    }

    pub(crate) fn decode(text: &[u8]) -> Result<DiskRecipe, Damage> {
        let mut cursor = Cursor::new(text, "disk");
        if &cursor.array()? != b"disk" {
            return Err(cursor.malformed("it does not begin like one"));
        }
        let size_bytes = cursor.u64()?;
        let segment_bytes = cursor.u32()?;
        if segment_bytes == 0 {
            return Err(cursor.malformed("its segments are empty"));
        }
        let segments = size_bytes.div_ceil(u64::from(segment_bytes));
        let pages = read_ids(&mut cursor, segments.div_ceil(LEAVES_PER_PAGE as u64))?;
        Ok(DiskRecipe { size_bytes, segment_bytes, pages })
    }

    /// How many segments the disk has; the last may be short.
    pub(crate) fn segments(&self) -> u64 {
        self.size_bytes.div_ceil(u64::from(self.segment_bytes))
    }

    /// The bytes of the disk that a segment covers.
    pub(crate) fn segment(&self, index: u64) -> std::ops::Range<u64> {
        let start = index * u64::from(self.segment_bytes);
        start..(start + u64::from(self.segment_bytes)).min(self.size_bytes)
    }

    /// How many leaves a page has; the last may have fewer.
    pub(crate) fn leaves(&self, page: u64) -> u64 {
        (self.segments() - page * LEAVES_PER_PAGE as u64).min(LEAVES_PER_PAGE as u64)
    }
}
