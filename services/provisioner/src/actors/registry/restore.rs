//! The registry writes its rows again after their table was lost: it is the only one that changes or removes them, so a row
//! that is missing is never one that should not be there.

use actix::fut::wrap_future;
use actix::{ActorFutureExt, AtomicResponse, Context, Handler};
use actor::TracedMessage;
use bus::{Revision, Table, TableError};
use contract::Stored;

use super::Registry;
use super::messages::RestoreRows;

impl Handler<TracedMessage<RestoreRows>> for Registry {
    type Result = AtomicResponse<Registry, Result<(), TableError>>;
    fn handle(&mut self, received: TracedMessage<RestoreRows>, _: &mut Context<Self>) -> Self::Result {
        let _in = received.span.enter();
        let (vms, seeds) = (self.vms.clone(), self.seeds.clone());
        let vm_records: Vec<_> = self.inventory.vms().cloned().collect();
        let seed_records: Vec<_> =
            self.inventory.seed_records().map(|seed| (self.seed_key(seed.name()), seed.clone())).collect();
        let work = async move {
            let (mut vm_revisions, mut seed_revisions) = (Vec::new(), Vec::new());
            for record in &vm_records {
                if let Some(revision) = restored(&vms, &record.key(), record).await? {
                    vm_revisions.push((record.name().clone(), revision));
                }
            }
            for (key, record) in &seed_records {
                if let Some(revision) = restored(&seeds, key, record).await? {
                    seed_revisions.push((record.name().clone(), revision));
                }
            }
            Ok::<_, TableError>((vm_revisions, seed_revisions))
        };
        AtomicResponse::new(Box::pin(wrap_future::<_, Self>(work).map(|outcome, this, _| {
            let (vms, seeds) = outcome?;
            if !vms.is_empty() || !seeds.is_empty() {
                tracing::warn!(vms = vms.len(), seeds = seeds.len(), "rows were lost and are written again");
            }
            this.vm_revisions.extend(vms);
            this.seed_revisions.extend(seeds);
            Ok(())
        })))
    }
}

/// Writes a row where there is none; its revision then.
async fn restored<T: Stored>(
    table: &Table<T>,
    key: &str,
    record: &T,
) -> Result<Option<Revision>, TableError> {
    match table.create(key, record).await {
        Ok(revision) => Ok(Some(revision)),
        Err(TableError::Conflict { .. } | TableError::Unreadable { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
