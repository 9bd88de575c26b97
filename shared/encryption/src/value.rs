//! Values that are encrypted, and digests that nobody can compute without the key.

use aws_lc_rs::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::keys::{KeyId, NoKey, RowKeys, derive};

const SALT_BYTES: usize = 32;

/// A row, by its table and its key. What is encrypted for one row does not decrypt for another.
#[derive(Clone, Copy, Debug)]
pub struct RowRef<'a> {
    /// The table.
    pub table: &'a str,
    /// The key of the row, or what identifies it in all its life.
    pub key: &'a str,
}

impl RowRef<'_> {
    /// Neither a table nor a key has a zero byte: no two rows are written alike.
    fn bytes(self) -> Vec<u8> {
        [self.table.as_bytes(), b"\0", self.key.as_bytes()].concat()
    }
}

/// An encrypted value as a row holds it. In JSON its bytes are base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Encrypted {
    key: KeyId,
    value: Ciphertext,
}

/// A digest that only who has the key can compute, or compare with anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedDigest {
    key: KeyId,
    blake3: String,
}

/// Why a value is not decrypted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecryptError {
    /// The file does not hold its key.
    #[error("it needs key {key}, which the file of row keys does not hold")]
    NoSuchKey {
        /// The key.
        key: KeyId,
    },
    /// It was changed, or is of another row.
    #[error("it was changed since it was encrypted, or is of another row")]
    NotAuthentic,
    /// It decrypts to something that this build cannot read.
    #[error("this version cannot read what it decrypts to")]
    UnknownForm,
}

impl Encrypted {
    /// The key that it was encrypted with.
    pub fn key(&self) -> &KeyId {
        &self.key
    }
}

impl RowKeys {
    /// Encrypts a value for a row with the newest key. `salt` is 32 random bytes, used once.
    ///
    /// # Errors
    /// When there is no key.
    pub fn encrypt(&self, row: RowRef<'_>, salt: [u8; SALT_BYTES], value: &[u8]) -> Result<Encrypted, NoKey> {
        let (id, key) = self.newest()?;
        let mut text = value.to_vec();
        one_time_key(key.as_slice(), &salt)
            .seal_in_place_append_tag(nonce(), Aad::from(row.bytes()), &mut text)
            .expect("rows are far below the cipher's 256 GiB");
        let bytes = [salt.as_slice(), &text].concat();
        Ok(Encrypted { key: id.clone(), value: Ciphertext(bytes) })
    }

    /// Decrypts a value of a row.
    ///
    /// # Errors
    /// When its key is not known, or it does not decrypt.
    pub fn decrypt(&self, row: RowRef<'_>, value: &Encrypted) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
        let unknown = || DecryptError::NoSuchKey { key: value.key.clone() };
        let key = self.find(&value.key).ok_or_else(unknown)?;
        let (salt, text) = value.value.0.split_first_chunk().ok_or(DecryptError::NotAuthentic)?;
        let mut text = Zeroizing::new(text.to_vec());
        let length = one_time_key(key.as_slice(), salt)
            .open_in_place(nonce(), Aad::from(row.bytes()), &mut text)
            .map_err(|_| DecryptError::NotAuthentic)?
            .len();
        text.truncate(length);
        Ok(text)
    }

    /// The digest of a value of a row, with the newest key.
    ///
    /// # Errors
    /// When there is no key.
    pub fn digest(&self, row: RowRef<'_>, value: &[u8]) -> Result<KeyedDigest, NoKey> {
        let (id, key) = self.newest()?;
        Ok(KeyedDigest { key: id.clone(), blake3: hex::encode(hash(key.as_slice(), row, value).as_bytes()) })
    }

    /// Whether a digest is that of a value of a row, whichever key it was made with.
    ///
    /// # Errors
    /// When its key is not known.
    pub fn is_digest_of(
        &self,
        digest: &KeyedDigest,
        row: RowRef<'_>,
        value: &[u8],
    ) -> Result<bool, DecryptError> {
        let unknown = || DecryptError::NoSuchKey { key: digest.key.clone() };
        let key = self.find(&digest.key).ok_or_else(unknown)?;
        let kept = blake3::Hash::from_hex(&digest.blake3).map_err(|_| DecryptError::NotAuthentic)?;
        Ok(kept == hash(key.as_slice(), row, value))
    }
}

fn one_time_key(key: &[u8], salt: &[u8; SALT_BYTES]) -> LessSafeKey {
    let key = derive("loam rows v1 value", &[key, salt]);
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key.as_slice()).expect("the cipher takes 32 bytes"))
}

/// Each value has a key of its own.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn hash(key: &[u8], row: RowRef<'_>, value: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(&derive("loam rows v1 digest", &[key]));
    hasher.update(&row.bytes()).update(b"\0").update(value);
    hasher.finalize()
}

/// Bytes, or base64 where the format is for people.
#[derive(Clone, PartialEq, Eq)]
struct Ciphertext(Vec<u8>);

impl std::fmt::Debug for Ciphertext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Ciphertext {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() {
            to.serialize_str(&STANDARD_NO_PAD.encode(&self.0))
        } else {
            to.serialize_bytes(&self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Ciphertext {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if !from.is_human_readable() {
            return serde_bytes::ByteBuf::deserialize(from).map(|bytes| Ciphertext(bytes.into_vec()));
        }
        let text = String::deserialize(from)?;
        STANDARD_NO_PAD.decode(text).map(Ciphertext).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: RowRef<'static> = RowRef { table: "vms", key: "a" };
    const OTHERS: [RowRef<'static>; 3] = [
        RowRef { table: "vms", key: "b" },
        RowRef { table: "operations", key: "a" },
        RowRef { table: "vm", key: "sa" },
    ];

    fn keys(bytes: &[u8]) -> RowKeys {
        let lines: Vec<String> = bytes.iter().map(|byte| hex::encode([*byte; 32])).collect();
        RowKeys::parse(&lines.join("\n")).expect("keys")
    }

    #[test]
    fn a_value_decrypts_in_its_own_row_only_and_unchanged_only() {
        let keys = keys(&[1]);
        let encrypted = keys.encrypt(ROW, [7; 32], b"sesame").expect("encrypted");
        assert_eq!(keys.decrypt(ROW, &encrypted).expect("decrypted").as_slice(), b"sesame");
        for other in OTHERS {
            assert_eq!(keys.decrypt(other, &encrypted), Err(DecryptError::NotAuthentic), "{other:?}");
        }
        for at in 0..encrypted.value.0.len() {
            let mut changed = encrypted.clone();
            changed.value.0[at] ^= 1;
            assert_eq!(keys.decrypt(ROW, &changed), Err(DecryptError::NotAuthentic), "byte {at}");
            changed.value.0.truncate(at);
            assert_eq!(keys.decrypt(ROW, &changed), Err(DecryptError::NotAuthentic), "{at} bytes");
        }
    }

    #[test]
    fn a_key_that_is_added_first_reads_what_the_older_one_wrote_until_that_is_dropped() {
        let encrypted = keys(&[1]).encrypt(ROW, [7; 32], b"sesame").expect("encrypted");
        let digest = keys(&[1]).digest(ROW, b"sesame").expect("a digest");
        let (rotated, dropped) = (keys(&[2, 1]), keys(&[2]));
        assert_eq!(rotated.decrypt(ROW, &encrypted).expect("decrypted").as_slice(), b"sesame");
        assert_eq!(rotated.is_digest_of(&digest, ROW, b"sesame"), Ok(true));
        assert!(!rotated.is_newest(encrypted.key()));
        assert!(rotated.is_newest(rotated.encrypt(ROW, [8; 32], b"sesame").expect("encrypted").key()));
        assert!(matches!(dropped.decrypt(ROW, &encrypted), Err(DecryptError::NoSuchKey { .. })));
        assert!(matches!(dropped.is_digest_of(&digest, ROW, b"sesame"), Err(DecryptError::NoSuchKey { .. })));
    }

    #[test]
    fn a_digest_is_of_one_value_of_one_row_and_one_key() {
        let keys_1 = keys(&[1]);
        let digest = keys_1.digest(ROW, b"sesame").expect("a digest");
        assert_eq!(keys_1.is_digest_of(&digest, ROW, b"sesame"), Ok(true));
        assert_eq!(keys_1.is_digest_of(&digest, ROW, b"sesam"), Ok(false));
        for other in OTHERS {
            assert_eq!(keys_1.is_digest_of(&digest, other, b"sesame"), Ok(false), "{other:?}");
        }
        assert_ne!(keys(&[2]).digest(ROW, b"sesame").expect("a digest").blake3, digest.blake3);
    }

    #[test]
    fn without_a_key_each_use_says_why() {
        let none = RowKeys::none("keys/rows.key is not there");
        let error = none.encrypt(ROW, [7; 32], b"sesame").expect_err("no key");
        assert!(error.to_string().ends_with("keys/rows.key is not there"), "{error}");
        assert!(none.digest(ROW, b"").is_err() && none.problem().is_some());
    }

    #[test]
    fn a_value_is_bytes_in_a_row_and_text_in_json_and_reads_back_from_both() {
        let encrypted = keys(&[1]).encrypt(ROW, [7; 32], &[9; 1000]).expect("encrypted");
        let row = rmp_serde::to_vec_named(&encrypted).expect("written");
        assert!(row.len() < 1150, "{} bytes", row.len());
        assert_eq!(rmp_serde::from_slice::<Encrypted>(&row).expect("read"), encrypted);
        let json = serde_json::to_value(&encrypted).expect("written");
        assert!(json["value"].is_string());
        // As the output of a step is stored: JSON inside of MessagePack.
        let inside: serde_json::Value =
            rmp_serde::from_slice(&rmp_serde::to_vec_named(&json).expect("written")).expect("read");
        assert_eq!(serde_json::from_value::<Encrypted>(inside).expect("read"), encrypted);
    }

    /// Known answers: what is stored must be read by every later build.
    #[test]
    fn the_format_is_as_it_was() {
        let keys = keys(&[1]);
        let encrypted = keys.encrypt(ROW, [7; 32], b"sesame").expect("encrypted");
        let digest = keys.digest(ROW, b"sesame").expect("a digest");
        let known = [encrypted.key.to_string(), hex::encode(&encrypted.value.0[SALT_BYTES..]), digest.blake3];
        assert_eq!(
            known,
            [
                "06e655f6b24978d1",
                "2975febdc975a043c4144513de756cf317fcf0a50d8a",
                "99f463fccf6440129a96e6fe105d22c0ccf472300c605deb68276043b46cc0c3"
            ]
        );
    }
}
