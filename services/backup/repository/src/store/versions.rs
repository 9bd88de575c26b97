//! The ids of small objects, each with its version when it was listed.

use futures::TryStreamExt;
use ulid::Ulid;

use super::{Store, StoreError, names};

/// An object's entity tag: it changes whenever the object is written. A snapshot may be removed and another sealed under
/// its id.
pub(crate) type Version = String;

impl Store {
    /// The ids of all objects `folder/id`, in no particular order, with their versions where the store has them.
    pub(crate) async fn versions(
        &self,
        folder: &'static str,
    ) -> Result<Vec<(Ulid, Option<Version>)>, StoreError> {
        let prefix = names::folder(folder);
        super::retry_once(|| async {
            let mut found = Vec::new();
            let mut pages = self.objects.list(Some(&prefix));
            while let Some(meta) = self.bounded("list", &prefix, pages.try_next()).await? {
                found.extend(names::entry_id(&meta.location).map(|id| (id, meta.e_tag)));
            }
            Ok(found)
        })
        .await
    }

    /// Whether versions cost no more than names alone.
    pub(crate) fn lists_versions(&self) -> bool {
        self.folder().is_none()
    }
}
