//! Which packs are due for verification.

use std::collections::HashMap;
use std::time::Duration;

use super::{HELD, Verification, VerifyError};
use crate::index;
use crate::keys::Keys;
use crate::lease;
use crate::object_times::TimestampFolder;
use crate::repository::Repository;
use crate::restore::ReadError;
use crate::store::{Store, names};

impl Repository {
    /// Verifies the packs that were not read for longest, as many as the budget allows.
    pub(super) async fn verify_rolling(
        &self,
        verification: &Verification<'_>,
        bytes_max: u64,
        older_than: Duration,
    ) -> Result<(), VerifyError> {
        let store = &self.shared.store;
        let times = verified_times(store, &self.shared.keys()).load().await.map_err(ReadError::Index)?;
        let now = lease::store_clock(store).await?;
        let limit = now.saturating_sub(older_than.as_millis().try_into().unwrap_or(i64::MAX));
        let listed = index::list_packs(store).await?;
        let mut due: Vec<_> = listed
            .iter()
            .map(|(id, pack)| (times.get(id.as_bytes()).copied(), *id, *pack))
            .filter(|(verified, ..)| verified.is_none_or(|verified| verified <= limit))
            .collect();
        due.sort_by_key(|(verified, id, _)| (*verified, *id));
        let mut left = bytes_max;
        let mut chosen = HashMap::new();
        for (_, id, pack) in &due {
            // A budget smaller than any pack still makes progress, by one pack at a time.
            if pack.bytes > left && !chosen.is_empty() {
                break;
            }
            left = left.saturating_sub(pack.bytes);
            chosen.insert(*id, *pack);
        }
        verification.report.lock().expect(HELD).packs_left = (due.len() - chosen.len()) as u64;
        verification.packs_recorded(chosen, &listed).await
    }
}

/// When each pack was last verified.
pub(super) fn verified_times<'a>(store: &'a Store, keys: &'a Keys) -> TimestampFolder<'a> {
    TimestampFolder { store, keys, folder: names::VERIFIED, object_name: "list of verified packs" }
}
