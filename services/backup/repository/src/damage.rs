//! What can be wrong with stored bytes, or with the key that is to open them.

use crate::ids::BlobId;

/// The version of every object written by this crate.
pub(crate) const FORMAT_VERSION: u16 = 1;

/// This key can store backups and not read them back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this key is write-only: it can store backups but neither read them back nor manage keys")]
pub struct WriteOnly;

/// Stored bytes are not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It does not begin as such an object does.
    #[error("this is not a {what}")]
    WrongMagic {
        /// What it should have been.
        what: &'static str,
    },
    /// Written by a newer version of this software.
    #[error("the {what} has format version {found}, this software reads up to {FORMAT_VERSION}: upgrade it")]
    NewerFormatVersion {
        /// The kind of object.
        what: &'static str,
        /// The version in its header.
        found: u16,
    },
    /// Too short, too long, or contradicting itself.
    #[error("the {what} is malformed: {why}")]
    Malformed {
        /// The kind of object.
        what: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// It does not decrypt under this repository's keys: changed, swapped or from elsewhere.
    #[error("the {what} is not authentic: it was changed, swapped or comes from elsewhere")]
    NotAuthentic {
        /// The kind of object.
        what: &'static str,
    },
    /// Encrypted in an epoch whose keys this slot was not granted.
    #[error("it is encrypted with keys of epoch {epoch}, which this key was not granted")]
    UnknownEpoch {
        /// The epoch's number.
        epoch: u32,
    },
    /// The object is sound, but a write-only key may not read it.
    #[error(transparent)]
    WriteOnlyKey(WriteOnly),
    /// It should be there and is not.
    #[error("the {what} is missing")]
    Missing {
        /// The kind of object.
        what: &'static str,
    },
    /// A blob decrypted, and its content does not match its id.
    #[error("the content of blob {id} does not match its id")]
    WrongContent {
        /// The id asked for.
        id: BlobId,
    },
    /// The index lists no pack that holds it.
    #[error("no pack holds blob {id}")]
    BlobMissing {
        /// The id asked for.
        id: BlobId,
    },
}
