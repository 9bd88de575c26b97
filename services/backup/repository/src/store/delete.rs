//! Removing objects.

use std::sync::Arc;

use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tracing::instrument;

use super::{Backend, Capabilities, Store, StoreError, retry_once};

impl Store {
    /// The same store, limited to what it was seen to be able to do at `init`.
    pub(crate) fn with_capabilities(mut self, seen: Capabilities) -> Store {
        if let Backend::S3 { bulk, .. } = &mut self.backend
            && !seen.deletes_many
        {
            *bulk = None;
        }
        self
    }

    /// The client that deletes many objects with one request, where there is one.
    fn bulk(&self) -> Option<&Arc<dyn ObjectStore>> {
        match &self.backend {
            Backend::S3 { bulk, .. } => bulk.as_ref(),
            Backend::Folder(_) | Backend::Other => None,
        }
    }

    /// Removes an object; one that is gone already counts as removed.
    #[instrument(name = "store delete", skip_all, fields(otel.kind = "client", object = %name))]
    pub(crate) async fn delete(&self, name: &Path) -> Result<(), StoreError> {
        if self.is_dry_run {
            return Ok(());
        }
        match retry_once(|| self.bounded("delete", name, self.objects.delete(name))).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes objects, many with one request where the store can (S3 DeleteObjects); one that is gone already counts as
    /// removed.
    #[instrument(name = "store delete all", skip_all, fields(otel.kind = "client", objects = names.len()))]
    pub(crate) async fn delete_all(&self, names: &[Path]) -> Result<(), StoreError> {
        if self.is_dry_run {
            return Ok(());
        }
        retry_once(|| self.delete_all_once(names)).await
    }

    /// Removes objects with one request; false where the store cannot.
    pub(super) async fn try_delete_all(&self, names: &[Path]) -> Result<bool, StoreError> {
        if self.bulk().is_none() {
            return Ok(false);
        }
        match retry_once(|| self.delete_all_once(names)).await {
            Ok(()) => Ok(true),
            Err(StoreError::Failed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn delete_all_once(&self, names: &[Path]) -> Result<(), StoreError> {
        let asked = futures::stream::iter(names.to_vec()).map(Ok).boxed();
        let mut answers = self.bulk().unwrap_or(&self.objects).delete_stream(asked);
        for name in names {
            let answer = async { answers.next().await.transpose() };
            match self.bounded("delete", name, answer).await {
                Ok(Some(_)) | Err(StoreError::NotFound { .. }) => {}
                Ok(None) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
