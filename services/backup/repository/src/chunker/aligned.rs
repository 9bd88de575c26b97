//! Cuts on the grid of blocks: what the blocks hold decides after which of them.
//!
//! ```text
//!   choice of a block   AES-128-ECB by the second key, of the tag that AES-128-GCM makes by the first key and a nonce
//!                       of zeros of an empty text with the block as associated data; its first 4 bytes, as a number
//!   b                   log2( average / 4096 )
//!   a chunk ends after a block if, with it, the chunk is
//!       shorter than the least length                             never
//!       shorter than the average                                  the highest b + 1 bits of the choice are zero
//!       otherwise                                                 the highest b - 1 bits of the choice are zero
//!       so long that another whole block may be too much          always
//! ```
//!
//! GHASH, which is what the tag is but for a constant, is a universal hash: that two blocks collide under an unknown key
//! is improbable. The block cipher after it hides everything else. So where chunks end says no more than which blocks
//! are equal, which cannot be said of rolling hashes with a secret seed (eprint 2025/532, 2025/558).
//!
//! The first and the last block of a stretch may be cut off. It does not know where the grid begins.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{AES_128, EncryptingKey, UnboundCipherKey};

use super::parameters::Chunking;
use super::{BLOCK_BYTES, blocks};

/// The two keys, one after the other.
pub(crate) const KEYS_BYTES: usize = 32;

/// Selects blocks.
pub(super) struct CutPointSelector {
    universal: LessSafeKey,
    cipher: EncryptingKey,
}

impl CutPointSelector {
    pub(super) fn new(keys: &[u8; KEYS_BYTES]) -> CutPointSelector {
        let (first, second) = keys.split_at(KEYS_BYTES / 2);
        let universal = UnboundKey::new(&AES_128_GCM, first).expect("16 bytes are a key");
        let cipher = UnboundCipherKey::new(&AES_128, second).expect("16 bytes are a key");
        let cipher = EncryptingKey::ecb(cipher).expect("a key of AES can be used with ECB");
        CutPointSelector { universal: LessSafeKey::new(universal), cipher }
    }

    fn choice(&self, block: &[u8]) -> u32 {
        // The tag is not visible, so its nonce may be the same each time.
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = self.universal.seal_in_place_separate_tag(nonce, Aad::from(block), &mut []);
        let mut hidden = [0; 16];
        hidden.copy_from_slice(tag.expect("a block is short enough for AES-GCM").as_ref());
        self.cipher.encrypt(&mut hidden).expect("16 bytes are a block of AES");
        let [a, b, c, d, ..] = hidden;
        u32::from_le_bytes([a, b, c, d])
    }

    /// The ends of the chunks of a stretch of data: `bytes`, which begin `at` so many bytes behind a line of the grid.
    pub(super) fn ends(&self, chunking: &Chunking, at: usize, bytes: &[u8]) -> Vec<usize> {
        let [min, avg, max] = [chunking.chunk_bytes_min, chunking.chunk_bytes_avg, chunking.chunk_bytes_max]
            .map(|size| size as usize);
        let bits = (avg / BLOCK_BYTES).ilog2();
        let mut ends = Vec::with_capacity(bytes.len() / avg + 2);
        let mut start = 0;
        for block in blocks(at..at + bytes.len()) {
            let (block, end) = (&bytes[block.start - at..block.end - at], block.end - at);
            let length = end - start;
            let bits = if length < avg { bits + 1 } else { bits - 1 };
            let is_chosen = || length >= min && self.choice(block) >> (u32::BITS - bits) == 0;
            if length > max - BLOCK_BYTES || is_chosen() {
                ends.push(end);
                start = end;
            }
        }
        if start < bytes.len() {
            ends.push(bytes.len());
        }
        ends
    }
}
