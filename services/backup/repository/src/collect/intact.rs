//! Whether what a backup relies on is still there, when its lease may have expired meanwhile.

use std::sync::Arc;

use super::{HELD, condemned};
use crate::Damage;
use crate::format::snapshot::DiskRecord;
use crate::repository::Repository;
use crate::restore::ReadError;
use crate::shared::Shared;
use crate::walk::RecipeWalk;

/// Whether every blob that some disks need is in a pack that exists and is not condemned. For callers whose lease was
/// not held all the time.
pub(crate) async fn are_intact(shared: &Arc<Shared>, disks: &[DiskRecord]) -> Result<bool, ReadError> {
    let condemned = condemned::all_packs(&shared.store, &shared.keys()).await?;
    let fresh = Repository { shared: Arc::clone(shared) }.with_fresh_index().await?.shared;
    let mut walk = RecipeWalk::new(&fresh);
    let mut all_there = Ok(true);
    for record in disks {
        let walked = walk
            .disk(record, &mut |id| {
                let index = fresh.index.read().expect(HELD);
                if let Ok(true) = all_there {
                    all_there = index.contains_outside(&condemned, &id);
                }
            })
            .await;
        match walked {
            Ok(()) => {}
            // A recipe that is gone cannot be walked.
            Err(ReadError::Damaged(Damage::BlobMissing { .. })) => return Ok(false),
            Err(ReadError::DamagedPack { source: Damage::Missing { .. }, .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(all_there?)
}
