//! Removes the small objects that processes leave when they die at a bad moment; no snapshot needs them.
//!
//! Half written objects in a folder, clock objects, rests of leases and of lists that are gone, replaced rosters. What a
//! live process may still use stays.

use std::time::Duration;

use super::{CollectError, condemned};
use crate::lease;
use crate::repository::Repository;
use crate::store::names;

impl Repository {
    pub(super) async fn remove_leftovers(
        &self,
        now_unix_ms: i64,
        lease_timeout: Duration,
    ) -> Result<(), CollectError> {
        let store = &self.shared.store;
        lease::sweep(store, now_unix_ms, lease_timeout).await?;
        condemned::sweep(store).await?;
        let silence = lease_timeout.as_millis().try_into().unwrap_or(i64::MAX);
        store.remove_half_written(now_unix_ms.saturating_sub(silence)).await?;
        // Those before the one in use, whose signature was checked.
        let held = self.shared.keys().roster();
        for listed in store.list(&names::rosters(self.id())).await? {
            if names::roster_number(&listed.path).is_some_and(|number| number < held) {
                store.delete(&listed.path).await?;
            }
        }
        Ok(())
    }
}
