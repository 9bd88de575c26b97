//! An open repository. Making and opening one: [`crate::open`].

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::ids::RepositoryId;
use crate::index::IndexError;
use crate::shared::Shared;

/// An open repository. Cheap to clone; all clones share keys and index.
#[derive(Clone)]
pub struct Repository {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Repository({})", self.id())
    }
}

impl Repository {
    /// The id given at init.
    pub fn id(&self) -> RepositoryId {
        self.shared.config.repository
    }

    /// Whether the key that opened it can read disks back, or only store them.
    pub fn can_read(&self) -> bool {
        self.shared.keys().can_read()
    }

    /// Brings the index up to what the store holds now.
    pub(crate) async fn refresh(&self) -> Result<(), IndexError> {
        self.shared.refresh().await
    }

    /// The same repository with an index of its own, loaded now; no other operation changes it.
    pub(crate) async fn with_fresh_index(&self) -> Result<Repository, IndexError> {
        let frozen = Repository { shared: self.shared.with_own_index() };
        frozen.refresh().await?;
        Ok(frozen)
    }
}

/// The host's clock, for records that people read. Nothing is decided by it.
pub(crate) fn unix_ms_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
