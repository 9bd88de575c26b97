//! The keys of the file, newest first.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;
const KEY_ID_BYTES: usize = 8;

pub(crate) type Key = Zeroizing<[u8; KEY_BYTES]>;

/// Names a key without telling anything about it: 16 hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(String);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text is not the content of a key file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKeys {
    /// A line is no key. It is not quoted.
    #[error("line {0} is not a key: 64 hexadecimal digits")]
    NotAKey(usize),
    /// There is no key in it.
    #[error("there is no key in it")]
    None,
}

/// There is no key to encrypt with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("nothing can be encrypted: {0}")]
pub struct NoKey(pub(crate) String);

/// The keys of an installation, or why there are none.
pub struct RowKeys {
    /// Newest first.
    keys: Vec<(KeyId, Key)>,
    problem: Option<String>,
}

impl fmt::Debug for RowKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.ids()).finish()
    }
}

/// A new key as a line of the file, made of 32 random bytes.
pub fn new_key(random: [u8; KEY_BYTES]) -> Zeroizing<String> {
    Zeroizing::new(format!("{}\n", hex::encode(*Zeroizing::new(random))))
}

impl RowKeys {
    /// Reads the content of a key file.
    ///
    /// # Errors
    /// When a line is no key, or there is none.
    pub fn parse(text: &str) -> Result<RowKeys, InvalidKeys> {
        let lines = text.lines().map(str::trim).enumerate();
        let keys = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).map(|(at, line)| {
            let mut key = Key::default();
            hex::decode_to_slice(line, key.as_mut_slice()).map_err(|_| InvalidKeys::NotAKey(at + 1))?;
            let id = derive("loam rows v1 key id", &[key.as_slice()]);
            Ok((KeyId(hex::encode(&id[..KEY_ID_BYTES])), key))
        });
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(InvalidKeys::None) } else { Ok(RowKeys { keys, problem: None }) }
    }

    /// No keys, because of a problem with their file: whatever needs one fails with it.
    pub fn none(problem: impl Into<String>) -> RowKeys {
        RowKeys { keys: Vec::new(), problem: Some(problem.into()) }
    }

    /// Why there are no keys.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// The ids of the keys, newest first.
    pub fn ids(&self) -> impl Iterator<Item = &KeyId> {
        self.keys.iter().map(|(id, _)| id)
    }

    /// Whether a key is the one that new values are encrypted with.
    pub fn is_newest(&self, id: &KeyId) -> bool {
        self.ids().next() == Some(id)
    }

    pub(crate) fn newest(&self) -> Result<&(KeyId, Key), NoKey> {
        self.keys.first().ok_or_else(|| NoKey(self.problem.clone().unwrap_or_default()))
    }

    pub(crate) fn find(&self, wanted: &KeyId) -> Option<&Key> {
        self.keys.iter().find(|(id, _)| id == wanted).map(|(_, key)| key)
    }
}

pub(crate) fn derive(purpose: &str, parts: &[&[u8]]) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key(purpose);
    for part in parts {
        hasher.update(part);
    }
    let key = Key::new(*hasher.finalize().as_bytes());
    zeroize::Zeroize::zeroize(&mut hasher);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_keys_newest_first_and_comments() {
        let (new, old) = ("ab".repeat(32), "01".repeat(32));
        let keys = RowKeys::parse(&format!("# of h1\n{new}\n\n {old} \n")).expect("two keys");
        let ids: Vec<String> = keys.ids().map(ToString::to_string).collect();
        assert_eq!(ids.len(), 2);
        assert!(keys.is_newest(&KeyId(ids[0].clone())) && !keys.is_newest(&KeyId(ids[1].clone())));
        assert!(RowKeys::parse(&old).expect("a key").is_newest(&KeyId(ids[1].clone())));
        assert_eq!(*new_key([0xab; 32]), format!("{new}\n"));
    }

    #[test]
    fn what_is_no_key_is_named_by_its_line_and_not_quoted() {
        let error = RowKeys::parse(&format!("{}\nsesame\n", "ab".repeat(32))).expect_err("no key");
        assert_eq!(error, InvalidKeys::NotAKey(2));
        assert!(!error.to_string().contains("sesame"));
        assert_eq!(RowKeys::parse("# nothing\n").expect_err("none"), InvalidKeys::None);
    }

    #[test]
    fn a_key_is_printed_by_its_id_only() {
        let keys = RowKeys::parse(&"ab".repeat(32)).expect("a key");
        assert!(!format!("{keys:?}").contains("abab"));
    }
}
