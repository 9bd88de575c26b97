//! A seed's record: being brought here, or here.

use contract::provisioner::Seed;
use contract::{OperationId, SeedName};
use serde::{Deserialize, Serialize};

/// A row of the table `seeds`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SeedRecord {
    /// An operation brings it; only its name is certain.
    Importing {
        /// Its name.
        name: SeedName,
        /// What the image must hash to.
        sha256: String,
        /// The operation.
        by: OperationId,
    },
    /// It is here, and this operation brought it.
    Here {
        /// The seed.
        seed: Seed,
        /// The operation.
        by: OperationId,
    },
}

impl SeedRecord {
    /// Its name.
    pub fn name(&self) -> &SeedName {
        match self {
            SeedRecord::Importing { name, .. } => name,
            SeedRecord::Here { seed, .. } => &seed.name,
        }
    }

    /// The digest of its image.
    pub fn sha256(&self) -> &str {
        match self {
            SeedRecord::Importing { sha256, .. } => sha256,
            SeedRecord::Here { seed, .. } => &seed.sha256,
        }
    }

    /// The seed, once it is here.
    pub fn here(&self) -> Option<&Seed> {
        match self {
            SeedRecord::Importing { .. } => None,
            SeedRecord::Here { seed, .. } => Some(seed),
        }
    }
}

/// Whether a text is a SHA-256: 64 hexadecimal digits in lower case.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
