//! Secrets that open a slot: a passphrase, a key file or an identity file.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::identity::{Identity, NotAKey};
use super::{KEY_BYTES, Key};

/// Longer secret files are a mistake, such as a disk image named by accident.
const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// A key file must be random bytes; fewer than these are no key.
const KEY_FILE_BYTES_MIN: usize = 32;
/// Permission bits that let a group or anyone change a file.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The kinds of secret; a slot is opened by its own kind only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretKind {
    /// Text that a person remembers.
    Passphrase,
    /// Random bytes in a file.
    KeyFile,
    /// The private half of a key pair.
    Identity,
}

/// A passphrase, the content of a key file, or a private key. Wiped from memory when dropped.
pub struct Secret {
    pub(super) kind: SecretKind,
    pub(super) bytes: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({:?})", self.kind)
    }
}

/// A secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file could not be read.
    #[error("could not read the secret file {path}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
    /// Others can change the file.
    #[error("the secret file {path} can be changed by others (mode {mode:o}): chmod go-w it")]
    WritableByOthers {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Nothing in it.
    #[error("the passphrase is empty")]
    Empty,
    /// Too much in it.
    #[error("the secret file {path} is larger than {SECRET_BYTES_MAX} bytes")]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Too little in it for a key.
    #[error("the key file {path} holds fewer than {KEY_FILE_BYTES_MIN} bytes")]
    KeyTooShort {
        /// The file.
        path: PathBuf,
    },
    /// No identity where one is needed.
    #[error("could not use the identity file {path}")]
    NotAnIdentity {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: NotAKey,
    },
    /// Not UTF-8 where text is needed.
    #[error("the secret file {path} is not text")]
    NotText {
        /// The file.
        path: PathBuf,
    },
}

impl Secret {
    /// A passphrase as typed.
    ///
    /// # Errors
    /// When it is empty.
    pub fn passphrase(text: &str) -> Result<Secret, SecretError> {
        if text.is_empty() {
            return Err(SecretError::Empty);
        }
        let bytes = Zeroizing::new(text.as_bytes().to_vec());
        Ok(Secret { kind: SecretKind::Passphrase, bytes })
    }

    /// The passphrase in a file; one line end at its end is not part of it.
    ///
    /// # Errors
    /// When the file cannot be read, is empty, or can be changed by others.
    pub fn passphrase_file(path: &Path) -> Result<Secret, SecretError> {
        let mut bytes = read_secret_file(path)?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        if bytes.is_empty() {
            return Err(SecretError::Empty);
        }
        Ok(Secret { kind: SecretKind::Passphrase, bytes })
    }

    /// A file of at least 32 random bytes, used unchanged.
    ///
    /// # Errors
    /// When the file cannot be read, is too short, or can be changed by others.
    pub fn key_file(path: &Path) -> Result<Secret, SecretError> {
        let bytes = read_secret_file(path)?;
        if bytes.len() < KEY_FILE_BYTES_MIN {
            return Err(SecretError::KeyTooShort { path: path.to_owned() });
        }
        Ok(Secret { kind: SecretKind::KeyFile, bytes })
    }

    /// The private key in an identity file.
    ///
    /// # Errors
    /// When the file cannot be read, holds no identity, or can be changed by others.
    pub fn identity_file(path: &Path) -> Result<Secret, SecretError> {
        let bytes = read_secret_file(path)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| SecretError::NotText { path: path.to_owned() })?;
        let identity = Identity::parse(text)
            .map_err(|source| SecretError::NotAnIdentity { path: path.to_owned(), source })?;
        Ok(Secret::from(&identity))
    }

    /// The private key, where this is an identity.
    pub(super) fn identity(&self) -> Option<Key> {
        match self.kind {
            SecretKind::Identity => <[u8; KEY_BYTES]>::try_from(self.bytes.as_slice()).ok().map(Key::from),
            SecretKind::Passphrase | SecretKind::KeyFile => None,
        }
    }
}

impl From<&Identity> for Secret {
    fn from(identity: &Identity) -> Secret {
        Secret { kind: SecretKind::Identity, bytes: Zeroizing::new(identity.0.to_vec()) }
    }
}

/// Reads a small file that only its owner may change.
pub(crate) fn read_secret_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let unreadable = |source| SecretError::Unreadable { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(SecretError::WritableByOthers { path: path.to_owned(), mode: metadata.mode() & 0o777 });
    }
    // Room for everything at once: a growing buffer would leave copies of the secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_BYTES_MAX as usize + 1));
    file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err(SecretError::TooLong { path: path.to_owned() });
    }
    Ok(bytes)
}
