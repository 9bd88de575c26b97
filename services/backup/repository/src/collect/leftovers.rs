//! What processes leave behind that die at a bad moment: small things, which no snapshot needs and nobody reads.
//!
//! Half written objects in a folder, clocks, ends of leases, notes of lists that are gone, rosters that were replaced.
//! Whatever may still be at work keeps its files.

use std::time::Duration;

use super::{CollectError, condemned};
use crate::lease;
use crate::repository::Repository;
use crate::store::names;

impl Repository {
    pub(super) async fn remove_leftovers(
        &self,
        now_unix_ms: i64,
        silence_max: Duration,
    ) -> Result<(), CollectError> {
        let store = &self.shared.store;
        lease::sweep(store, now_unix_ms, silence_max).await?;
        condemned::sweep(store).await?;
        let silence = silence_max.as_millis().try_into().unwrap_or(i64::MAX);
        store.remove_half_written(now_unix_ms.saturating_sub(silence)).await?;
        // Those before the one that we hold, whose signature we have seen.
        let held = self.shared.keys().roster();
        for listed in store.list(&names::rosters(self.id())).await? {
            if names::roster_number(&listed.path).is_some_and(|number| number < held) {
                store.delete(&listed.path).await?;
            }
        }
        Ok(())
    }
}
