//! A seed's record: importing, or imported.

use contract::provisioner::Seed;
use contract::{NoPrevious, OperationId, SeedName, Stored};
use serde::{Deserialize, Serialize};

/// A row of the table `seeds`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeedImageRecord {
    /// An operation imports it.
    Importing {
        /// Its name.
        name: SeedName,
        /// The SHA-256 that the image must have.
        sha256: String,
        /// The operation.
        by: OperationId,
    },
    /// It is imported.
    Imported {
        /// The seed.
        seed: Seed,
        /// The operation that imported it.
        by: OperationId,
    },
}

impl Stored for SeedImageRecord {
    const VERSION: u16 = 1;
    type Previous = NoPrevious;

    fn migrate(previous: NoPrevious) -> Self {
        match previous {}
    }
}

impl SeedImageRecord {
    /// Its name.
    pub fn name(&self) -> &SeedName {
        match self {
            SeedImageRecord::Importing { name, .. } => name,
            SeedImageRecord::Imported { seed, .. } => &seed.name,
        }
    }

    /// The digest of its image.
    pub fn sha256(&self) -> &str {
        match self {
            SeedImageRecord::Importing { sha256, .. } => sha256,
            SeedImageRecord::Imported { seed, .. } => &seed.sha256,
        }
    }

    /// The seed, once it is imported.
    pub fn imported(&self) -> Option<&Seed> {
        match self {
            SeedImageRecord::Importing { .. } => None,
            SeedImageRecord::Imported { seed, .. } => Some(seed),
        }
    }
}

/// Whether a text is a SHA-256: 64 hexadecimal digits in lower case.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
