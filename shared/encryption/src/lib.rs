//! What rows hold encrypted: values that nobody but their service may read, under the keys of one file.
//!
//! ```text
//!   rows.key     one key of 32 bytes a line, 64 hexadecimal digits, newest first; empty lines and those that begin with
//!                '#' are left out. One file for an installation: every host has the same
//!
//!   key id       derive( "loam rows v1 key id", key ), its first 8 bytes: stored beside what the key encrypted
//!   value        salt 32, random | ciphertext | tag 16
//!                ChaCha20-Poly1305 (RFC 8439) under derive( "loam rows v1 value", key | salt ), nonce 0,
//!                aad = table | 0 × 1 | key of the row
//!   digest       BLAKE3 of table | 0 × 1 | key of the row | 0 × 1 | bytes, keyed with derive( "loam rows v1 digest", key )
//!   derive       BLAKE3 in its mode for deriving keys: context, material
//! ```
//!
//! Promises: each value has a key of its own, so that no nonce is used twice; a value that is moved to another row does
//! not decrypt; with a key that was added later, what an older one encrypted is still read; keys are wiped from memory
//! when dropped, and `Debug` prints none. Keys that are missing are an error of each use, not of the start.
//!
//! It deliberately does not know what is stored where, and reads no file. Next: `keys`, then `value`.

#![warn(clippy::missing_errors_doc)]

mod keys;
mod value;

pub use keys::{InvalidKeys, KeyId, NoKey, RowKeys, new_key};
pub use value::{DecryptError, Encrypted, KeyedDigest, RowRef};
