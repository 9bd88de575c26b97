//! Removing objects.

use futures::StreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use tracing::instrument;

use super::{Capabilities, Store, StoreError, twice};

impl Store {
    /// The same store, of which no more is asked than it was seen to be able to do.
    pub(crate) fn able(self, seen: Capabilities) -> Store {
        Store { bulk: self.bulk.filter(|_| seen.deletes_many), ..self }
    }

    /// Removes an object; one that is gone already counts as removed.
    #[instrument(name = "store delete", skip_all, fields(otel.kind = "client", object = %name))]
    pub(crate) async fn delete(&self, name: &Path) -> Result<(), StoreError> {
        if self.is_dry {
            return Ok(());
        }
        match twice(|| self.bounded("delete", name, self.objects.delete(name))).await {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes objects, many with one request where the store can (S3 DeleteObjects); one that is gone already counts as
    /// removed.
    #[instrument(name = "store delete all", skip_all, fields(otel.kind = "client", objects = names.len()))]
    pub(crate) async fn delete_all(&self, names: &[Path]) -> Result<(), StoreError> {
        if self.is_dry {
            return Ok(());
        }
        twice(|| self.delete_all_once(names)).await
    }

    /// Removes objects with one request, where the store can; says whether it can.
    pub(super) async fn could_delete_all(&self, names: &[Path]) -> Result<bool, StoreError> {
        if self.bulk.is_none() {
            return Ok(false);
        }
        match twice(|| self.delete_all_once(names)).await {
            Ok(()) => Ok(true),
            Err(StoreError::Failed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn delete_all_once(&self, names: &[Path]) -> Result<(), StoreError> {
        let asked = futures::stream::iter(names.to_vec()).map(Ok).boxed();
        let mut answers = self.bulk.as_ref().unwrap_or(&self.objects).delete_stream(asked);
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
