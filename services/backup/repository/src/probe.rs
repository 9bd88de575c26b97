//! Whether an open repository is still where it was opened.
//!
//! A folder whose disk was unmounted lists as empty and not as an error; only reading the config object shows the difference.

use tracing::instrument;

use crate::format::config::Config;
use crate::open_error::OpenError;
use crate::repository::Repository;
use crate::store::{StoreError, names};

impl Repository {
    /// Reads the config again, and uses new keys where an epoch has begun since: one small object and a short listing.
    ///
    /// # Errors
    /// [`OpenError::NoRepository`] when it is gone, [`OpenError::NotARepository`] when another repository is at its location,
    /// [`OpenError::Damaged`], or when the store fails.
    #[instrument(name = "repository.probe", skip_all)]
    pub async fn probe(&self) -> Result<(), OpenError> {
        let name = names::config();
        let object = match self.shared.store.get(&name).await {
            Ok(object) => object,
            Err(StoreError::NotFound { .. }) => return Err(OpenError::NoRepository),
            Err(error) => return Err(error.into()),
        };
        let found = Config::decode(&object)
            .and_then(|claimed| {
                if claimed.config.repository == self.id() {
                    claimed.authenticate(&self.shared.keys()).map(Some)
                } else {
                    Ok(None)
                }
            })
            .map_err(|source| OpenError::Damaged { name: name.to_string(), source })?;
        found.map(drop).ok_or(OpenError::NotARepository)?;
        self.refresh_keys().await
    }
}
