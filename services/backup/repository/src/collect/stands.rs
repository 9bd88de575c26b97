//! Whether what a backup relies on is still there, when it may have been taken for dead meanwhile.

use std::sync::Arc;

use super::{HELD, condemned};
use crate::Damage;
use crate::format::snapshot::DiskRecord;
use crate::repository::Repository;
use crate::restore::ReadError;
use crate::shared::Shared;
use crate::walk::Walk;

/// Whether every blob that some disks need lies in a pack that is there and on no list. Asked by who has no lease
/// that was held all the while.
pub(crate) async fn stands(shared: &Arc<Shared>, disks: &[DiskRecord]) -> Result<bool, ReadError> {
    let condemned = condemned::all_packs(&shared.store, &shared.keys()).await?;
    let seen = Repository { shared: Arc::clone(shared) }.frozen().await?.shared;
    let mut walk = Walk::new(&seen);
    let mut all_stand = Ok(true);
    for record in disks {
        let walked = walk
            .disk(record, &mut |id| {
                let index = seen.index.read().expect(HELD);
                if let Ok(true) = all_stand {
                    all_stand = index.contains_outside(&condemned, &id);
                }
            })
            .await;
        match walked {
            Ok(()) => {}
            // A recipe that is gone cannot be walked.
            Err(ReadError::Damaged(Damage::BlobMissing { .. })) => return Ok(false),
            Err(ReadError::Pack { source: Damage::Missing { .. }, .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(all_stand?)
}
