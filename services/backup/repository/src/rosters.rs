//! Which key roster is in force, and whether it matches what this host has seen before.
//!
//! ```text
//!   store: keys/REPOSITORY/…  ──the highest number──> roster ──opened──> keys ──checked against the pin──> used
//!                ^                                                                │
//!                └────────── again, where another process of this host has seen a newer one
//! ```

use tokio::task::spawn_blocking;

use crate::damage::Damage;
use crate::format::roster::UnverifiedKeyRoster;
use crate::ids::RepositoryId;
use crate::index::Cache;
use crate::keys::{KeyRosterError, Keys};
use crate::open_error::{OpenError, not_opened};
use crate::pin::{self, KeyPinError};
use crate::repository::Repository;
use crate::store::{Store, StoreError, names};

/// Attempts at reading the newest roster when another replaces it meanwhile.
const ROSTER_READS_MAX: usize = 5;

/// The newest roster with a number above `known`.
pub(crate) async fn read_roster(
    store: &Store,
    repository: RepositoryId,
    known: u64,
) -> Result<Option<(String, UnverifiedKeyRoster)>, OpenError> {
    for _ in 0..ROSTER_READS_MAX {
        let listed = store.list(&names::rosters(repository)).await?;
        let newest = listed.iter().filter_map(|listed| names::roster_number(&listed.path)).max();
        let Some(number) = newest.filter(|number| *number > known) else {
            return Ok(None);
        };
        let name = names::roster(repository, number);
        let object = match store.get(&name).await {
            Ok(object) => object,
            // Replaced by a newer one since it was listed.
            Err(StoreError::NotFound { .. }) => continue,
            Err(error) => return Err(error.into()),
        };
        let damaged = |source| OpenError::Damaged { name: name.to_string(), source };
        let roster = UnverifiedKeyRoster::decode(&object).map_err(damaged)?;
        if roster.roster.number != number {
            return Err(damaged(Damage::NotAuthentic { what: "key roster" }));
        }
        return Ok(Some((name.to_string(), roster)));
    }
    Err(StoreError::NotFound { name: names::rosters(repository).to_string() }.into())
}

/// Checks keys against what this host has seen before. Another process of this host may have changed them since they
/// were read, and updated the pin: then the newer ones are returned. A store that does not have them is refused.
pub(crate) async fn checked_against_pin(
    store: &Store,
    cache: &Cache,
    repository: RepositoryId,
    mut keys: Keys,
) -> Result<Keys, OpenError> {
    let Some(folder) = cache.folder() else {
        return Ok(keys);
    };
    let mut reads_left = ROSTER_READS_MAX;
    loop {
        let folder = folder.to_owned();
        let (held, same_keys) = spawn_blocking(move || (pin::check_and_update(&folder, &keys), keys))
            .await
            .expect("using the cache folder does not panic");
        keys = match held {
            Ok(()) => return Ok(same_keys),
            Err(rolled_back @ KeyPinError::RolledBack { .. }) if reads_left > 0 => {
                // Rare, so it does not make the future of every opening larger.
                Box::pin(newer(store, repository, &same_keys)).await?.ok_or(rolled_back)?
            }
            Err(error) => return Err(error.into()),
        };
        reads_left -= 1;
    }
}

/// The keys of the newest roster, through the slot that is open; `None` where these are the newest.
async fn newer(store: &Store, repository: RepositoryId, keys: &Keys) -> Result<Option<Keys>, OpenError> {
    let Some((name, roster)) = read_roster(store, repository, keys.roster()).await? else {
        return Ok(None);
    };
    roster.reopen(repository, keys).map(Some).map_err(|error| match error {
        KeyRosterError::NoMatchingSlot => OpenError::KeyRemoved,
        error => not_opened(error, name),
    })
}

impl Repository {
    /// Uses the keys of a roster that was written since the repository was opened.
    pub(crate) async fn refresh_keys(&self) -> Result<(), OpenError> {
        match newer(&self.shared.store, self.id(), &self.shared.keys()).await? {
            Some(keys) => self.use_newer_keys(keys).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn use_newer_keys(&self, keys: Keys) -> Result<(), OpenError> {
        let keys = checked_against_pin(&self.shared.store, &self.shared.cache, self.id(), keys).await?;
        self.shared.use_keys(keys);
        Ok(())
    }
}
