//! Why a repository could not be made or opened.

use crate::damage::{Damage, WriteOnly};
use crate::index::IndexError;
use crate::keys::KeyRosterError;
use crate::pin::KeyPinError;
use crate::store::StoreError;

/// A repository could not be made or opened. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no repository; init makes one.
    #[error("there is no repository here (make one with init)")]
    NoRepository,
    /// The location holds something else.
    #[error("this location is not empty and is not a repository")]
    NotARepository,
    /// `init` where a repository exists.
    #[error("there is already a repository here")]
    RepositoryExists,
    /// No key slot opens with this secret.
    #[error("the passphrase or key file does not open this repository")]
    WrongSecret,
    /// The slot that opened the repository was removed from its roster.
    #[error("the key that this repository was opened with has been removed")]
    KeyRemoved,
    /// The store lacks create-if-absent or consistent listing.
    #[error(
        "this store cannot create objects only if they are absent, or does not list them: no backup would be safe"
    )]
    StoreUnsupported,
    /// Object Lock was asked for and the store does not have it.
    #[error("objects cannot be locked here: this needs an S3 bucket that was created with Object Lock")]
    ObjectLockUnsupported,
    /// Written by newer software, or damaged.
    #[error("could not read {name}")]
    Damaged {
        /// The object.
        name: String,
        /// What is wrong with it.
        #[source]
        source: Damage,
    },
    /// The key derivation cannot be computed here.
    #[error("could not derive a key from the secret: {0}")]
    Kdf(argon2::Error),
    /// The store has other keys than this host has seen.
    #[error("the repository's keys are not the ones this host has seen")]
    KeyPin(#[from] KeyPinError),
    /// The cache folder cannot be used.
    #[error("could not use the cache folder")]
    Cache(#[source] IndexError),
    /// A write-only key cannot do this.
    #[error(transparent)]
    WriteOnly(#[from] WriteOnly),
    /// The store failed.
    #[error("could not reach the repository")]
    Store(#[from] StoreError),
}

/// The error for a roster that did not open.
pub(crate) fn not_opened(error: KeyRosterError, name: String) -> OpenError {
    match error {
        KeyRosterError::NoMatchingSlot => OpenError::WrongSecret,
        KeyRosterError::KdfCost(error) => OpenError::Kdf(error),
        KeyRosterError::Damaged(Damage::WriteOnlyKey(write_only)) => OpenError::WriteOnly(write_only),
        KeyRosterError::Damaged(source) => OpenError::Damaged { name, source },
    }
}
