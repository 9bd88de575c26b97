//! Authenticated encryption with a symmetric key.
//!
//! ```text
//!   cipher   0 AES-256-GCM (NIST SP 800-38D), 1 ChaCha20-Poly1305 (RFC 8439)
//!   nonce      0 × 8 | number 4, big-endian
//!   encrypted  ciphertext, as long as the plaintext | tag 16
//! ```

use std::sync::atomic::{AtomicBool, Ordering};

use aws_lc_rs::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::KEY_BYTES;

/// Bytes that either cipher adds.
pub(crate) const TAG_BYTES: usize = 16;

/// The cipher of an object; written beside it, so that hosts of both kinds share a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Cipher {
    /// AES-256 in Galois/counter mode (NIST SP 800-38D).
    Aes256Gcm = 0,
    /// ChaCha20-Poly1305 (RFC 8439).
    ChaCha20Poly1305 = 1,
}

/// Whether this process acts as on a processor without AES instructions.
static AES_IS_DISREGARDED: AtomicBool = AtomicBool::new(false);

/// From now on this process encrypts as on a processor without AES instructions. For tests of both ciphers on one host.
#[doc(hidden)]
pub fn disregard_aes_instructions() {
    AES_IS_DISREGARDED.store(true, Ordering::Relaxed);
}

impl Cipher {
    /// The faster one on this processor: AES, where it has instructions for it.
    pub(crate) fn preferred() -> Cipher {
        if AES_IS_DISREGARDED.load(Ordering::Relaxed) {
            return Cipher::ChaCha20Poly1305;
        }
        #[cfg(target_arch = "x86_64")]
        let has_aes = std::arch::is_x86_feature_detected!("aes");
        #[cfg(target_arch = "aarch64")]
        let has_aes = std::arch::is_aarch64_feature_detected!("aes");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let has_aes = false;
        if has_aes { Cipher::Aes256Gcm } else { Cipher::ChaCha20Poly1305 }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Cipher> {
        [Cipher::Aes256Gcm, Cipher::ChaCha20Poly1305].get(usize::from(byte)).copied()
    }
}

/// It did not decrypt: wrong key, or changed since it was encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

/// A cipher under a key that is used for one pack or one object, with a counter as nonce.
pub(crate) struct Aead(LessSafeKey);

impl Aead {
    pub(super) fn new(cipher: Cipher, key: &[u8; KEY_BYTES]) -> Aead {
        let algorithm = match cipher {
            Cipher::Aes256Gcm => &AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        Aead(LessSafeKey::new(UnboundKey::new(algorithm, key).expect("both ciphers take 32 bytes")))
    }

    /// Encrypts in place and appends the tag. Each `number` is used once per key.
    pub(crate) fn encrypt(&self, number: u32, aad: &[u8], text: &mut Vec<u8>) {
        self.0
            .seal_in_place_append_tag(nonce(number), Aad::from(aad), text)
            .expect("texts are far below the ciphers' 64 GiB");
    }

    /// Decrypts in place and returns the plaintext without the tag.
    pub(crate) fn decrypt<'a>(
        &self,
        number: u32,
        aad: &[u8],
        encrypted: &'a mut [u8],
    ) -> Result<&'a mut [u8], NotAuthentic> {
        self.0.open_in_place(nonce(number), Aad::from(aad), encrypted).map_err(|_| NotAuthentic)
    }
}

fn nonce(number: u32) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 4..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}
