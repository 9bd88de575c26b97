//! What the steps of several sagas share: a place for heavy work, the meter, the words of errors.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use backup_domain::reference::resolve;
use backup_repository::{Progress, Repository, Snapshot, SnapshotError};
use contract::{BackupId, BackupRef};
use operation::{Context, Meter};
use saga::Trouble;

use super::World;
use crate::actors::{CopyistsError, Freshness, StoreShut, Trade};
use crate::adapters::snapshots::{in_words, snapshot_id};

/// How often the engine's counters are read for the meter.
const METER_EVERY: Duration = Duration::from_millis(250);

/// An error that may pass by waiting.
pub(super) fn passing(error: &dyn Error) -> Trouble {
    Trouble::Passing(in_words(error))
}

/// An error that will not.
pub(super) fn lasting(error: &dyn Error) -> Trouble {
    Trouble::Final(in_words(error))
}

impl From<StoreShut> for Trouble {
    fn from(shut: StoreShut) -> Trouble {
        Trouble::Passing(shut.to_string())
    }
}

impl From<CopyistsError> for Trouble {
    fn from(error: CopyistsError) -> Trouble {
        match error {
            CopyistsError::Full | CopyistsError::Actor(_) => passing(&error),
            CopyistsError::GivenUp => lasting(&error),
        }
    }
}

/// Waits for a place to do heavy work. Whoever takes one gives it back with [`leave`], also in an undo.
pub(super) async fn take<I>(context: &Context<World, I>, trade: Trade) -> Result<(), Trouble> {
    Ok(context.world.copyists.take(trade, &context.id, &context.cancel).await?)
}

/// Gives the place back.
pub(super) async fn leave<I>(context: &Context<World, I>) -> Result<(), Trouble> {
    Ok(context.world.copyists.leave(&context.id).await?)
}

/// Does engine work while the meter shows how far it is.
pub(super) async fn metered<T>(meter: &Meter, progress: &Arc<Progress>, work: impl Future<Output = T>) -> T {
    let show = async {
        let mut ticks = tokio::time::interval(METER_EVERY);
        loop {
            ticks.tick().await;
            let reading = progress.read();
            meter.set_total(reading.total_bytes);
            meter.set_done(reading.done_bytes);
            meter.set_stored(reading.stored_bytes);
        }
    };
    tokio::select! {
        outcome = work => outcome,
        () = show => unreachable!("the meter is shown until the work ends"),
    }
}

/// The repository, seen to be there just now: a folder whose disk is away would take everything that is written.
pub(super) async fn repository(world: &World) -> Result<Repository, Trouble> {
    let repository = world.library.repository().await?;
    if let Err(error) = repository.probe().await {
        world.library.look_again().await;
        return Err(passing(&error));
    }
    Ok(repository)
}

/// The backup that a reference means now. One that is not in the list at hand is looked for in the store.
pub(super) async fn resolve_now(world: &World, reference: &BackupRef) -> Result<BackupId, Trouble> {
    let mut refusal = None;
    for freshness in [Freshness::AtHand, Freshness::Fresh] {
        let catalogue = world.library.catalogue(freshness).await?;
        match resolve(reference, &catalogue.0) {
            Ok(backup) => return Ok(backup.id.clone()),
            Err(refused) => refusal = Some(refused),
        }
    }
    let refused = refusal.expect("two attempts without success left a refusal");
    Err(Trouble::Final(refused.to_string()))
}

/// The snapshot of a backup that was there before.
pub(super) async fn snapshot(repository: &Repository, id: &BackupId) -> Result<Snapshot, Trouble> {
    repository.snapshot(snapshot_id(id)).await.map_err(|error| match error {
        SnapshotError::Store(_) => passing(&error),
        error => lasting(&error),
    })
}
