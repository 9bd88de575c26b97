//! The root of a stream's recipe; the layout is on the page of [`super::recipe`].

use crate::cursor::Cursor;
use crate::damage::Damage;
use crate::ids::BlobId;

const LEAF_BYTES: usize = 8 + 32;

/// The recipe of bytes that are read from the first to the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamRecipe {
    pub(crate) size_bytes: u64,
    /// Each leaf with the bytes it covers.
    pub(crate) leaves: Vec<(u64, BlobId)>,
}

impl StreamRecipe {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = b"strm".to_vec();
        out.extend_from_slice(&self.size_bytes.to_le_bytes());
        for (bytes, leaf) in &self.leaves {
            out.extend_from_slice(&bytes.to_le_bytes());
            out.extend_from_slice(leaf.as_bytes());
        }
        out
    }

    pub(crate) fn decode(text: &[u8]) -> Result<StreamRecipe, Damage> {
        let mut cursor = Cursor::new(text, "stream");
        if &cursor.array()? != b"strm" {
            return Err(cursor.malformed("it does not begin like one"));
        }
        let size_bytes = cursor.u64()?;
        let mut leaves = Vec::with_capacity(text.len() / LEAF_BYTES);
        let mut covered = 0u64;
        while !cursor.is_empty() {
            let bytes = cursor.u64()?;
            covered =
                covered.checked_add(bytes).ok_or_else(|| cursor.malformed("its leaves are too long"))?;
            leaves.push((bytes, BlobId::from(cursor.array()?)));
        }
        if covered == size_bytes {
            Ok(StreamRecipe { size_bytes, leaves })
        } else {
            Err(cursor.malformed("its leaves do not fill it"))
        }
    }
}
