//! A backup: the disks of a VM at one moment, copied into the repository and sealed.
//!
//! ```text
//!   queue        wait for a transfer slot                         undo: give it back
//!   open_disks   the provisioner exports the disks at one moment  undo: close them, or leave them to their lease
//!   copy         the engine reads what is open, or is opened      undo: discard the draft
//!                anew; the lease is renewed
//!   close_disks  close them, or leave them to their lease
//!   seal         the backup exists; publish it                    undo: forget it
//! ```
//!
//! Sealing is last, so that nothing that fails later can turn a sealed backup back. The snapshot's id is the
//! operation's: sealing twice is sealing once. The output of `copy` is a draft that another process can seal.

use std::time::{Duration, Instant};

use backup_domain::{plan, snapshot};
use backup_repository::{BackupRequest, CopyDisksError, Draft, Progress, SealBackupError};
use contract::BackupId;
use contract::backup::{Backup, BackupSealed, StartBackup};
use contract::message::with_causes;
use contract::provisioner::OpenedDisks;
use operation::Saga;
use saga::{Outputs, Step, StepError};
use serde::{Deserialize, Serialize};

use super::steps::{
    QUEUE_MAX, TRANSFER_MAX, permanent, queue_copy, read_error, release_slot, repository, take_slot,
    transient, with_progress,
};
use crate::actors::SlotKind;
use crate::adapters::provisioner::LeaseStatus;
use crate::adapters::snapshots::{backup_of, snapshot_id, stored};
use crate::state::ServiceState;

/// Freezing, opening, thawing, and one repetition of the request.
const OPEN_MAX: Duration = Duration::from_secs(200);
/// A VM that is being started or stopped is free again after this.
const OPEN_RETRY_FOR: Duration = Duration::from_secs(120);
/// Closing is tried this long; then the lease does it.
const CLOSE_RETRY_FOR: Duration = Duration::from_secs(60);
const CLOSE_MAX: Duration = Duration::from_secs(200);
/// One small object, with the store's own retries.
const SEAL_MAX: Duration = Duration::from_secs(600);
/// A copied backup is worth waiting for; while it waits it holds neither disk exports nor a slot.
const SEAL_RETRY_FOR: Duration = Duration::from_secs(3600);
/// How long the undo of sealing waits for the store.
const FORGET_RETRY_FOR: Duration = Duration::from_secs(60);
/// The lease is renewed this often, or sooner where it is short.
const RENEW_INTERVAL: Duration = Duration::from_secs(30);
/// After a request that was not answered.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

type Context = operation::Context<ServiceState, StartBackup>;

impl Saga<ServiceState> for StartBackup {
    fn steps() -> Vec<Step<Context>> {
        vec![
            Step::new("queue", QUEUE_MAX, queue_copy).undone_by(undo),
            Step::new("open_disks", OPEN_MAX, open_disks).undone_by(close_disks).retrying_for(OPEN_RETRY_FOR),
            Step::new("copy", TRANSFER_MAX, copy).undone_by(discard),
            Step::new("close_disks", CLOSE_MAX, close_disks),
            Step::new("seal", SEAL_MAX, seal).undone_by(unseal).retrying_for(SEAL_RETRY_FOR),
        ]
    }
}

/// A draft as it is kept in the journal: MessagePack in hexadecimal digits, because a JSON list of bytes is four
/// times as long.
#[derive(Debug, Serialize, Deserialize)]
struct Copied {
    draft: String,
}

impl Copied {
    fn encode(draft: &Draft) -> Result<Copied, StepError> {
        let bytes = rmp_serde::to_vec_named(draft).map_err(|error| permanent(&error))?;
        Ok(Copied { draft: hex::encode(bytes) })
    }

    fn decode(&self) -> Result<Draft, StepError> {
        let bytes = hex::decode(&self.draft).map_err(|error| permanent(&error))?;
        rmp_serde::from_slice(&bytes).map_err(|error| permanent(&error))
    }
}

async fn undo(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    release_slot(context, outputs).await?;
    context.state.metrics.backup_undone();
    Ok(())
}

/// What is open is not kept in the journal: `copy` asks again, because it may have been opened anew since.
async fn open_disks(context: &Context, _: &Outputs) -> Result<(), StepError> {
    opened_disks(context).await.map(drop)
}

/// The exports of this operation: those that are open while their lease lives, else new ones, at a new point in time.
async fn opened_disks(context: &Context) -> Result<OpenedDisks, StepError> {
    let opened = context.state.provisioner.open_disks(&context.command.vm, &context.id).await?;
    plan::check_exports(&context.state.host, &opened).map_err(|unusable| permanent(&unusable))?;
    Ok(opened)
}

async fn close_disks(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    let until = Instant::now() + CLOSE_RETRY_FOR;
    while let Err(error) = context.state.provisioner.close_disks(&context.id).await {
        if Instant::now() >= until {
            tracing::warn!(operation = %context.id, %error, "the disk exports were left to their lease");
            break;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    release_slot(context, outputs).await
}

async fn copy(context: &Context, _: &Outputs) -> Result<Copied, StepError> {
    let state = &context.state;
    // After a crash the slot that `queue` took is free again.
    take_slot(context, SlotKind::Copy).await?;
    let repository = repository(state).await?;
    // Copying starts at the beginning each time, so that all that is sealed is of one point in time.
    let opened = opened_disks(context).await?;
    let mut disks = Vec::with_capacity(opened.exports.len());
    for export in &opened.exports {
        let disk = state.exports.connect(&context.id, export).await.map_err(|error| transient(&error))?;
        disks.push((export.disk.to_string(), disk));
    }
    let request = BackupRequest {
        machine: context.command.vm.to_string(),
        taken_at_unix_ms: u64::try_from(opened.opened_at.timestamp_millis()).unwrap_or_default(),
        tags: snapshot::tags(context.command.schedule.as_ref()),
        disks,
        streams: Vec::new(),
        definition: plan::write_definition(&opened.definition),
        // Exports do not say yet what changed since the last backup.
        parent: None,
        consistency: stored(opened.consistency),
    };
    let (progress, started) = (Progress::new().into(), Instant::now());
    let work =
        with_progress(&context.progress, &progress, repository.copy(request, &progress, &context.cancel));
    let copied = tokio::select! {
        copied = work => copied,
        () = lease_lost(context, Duration::from_secs(opened.lease_seconds.into())) => {
            return Err(StepError::Transient("the disk exports were closed; opening them anew".into()));
        }
    };
    let draft = copied.map_err(|error| match error {
        CopyDisksError::DiskNames | CopyDisksError::Cancelled => permanent(&error),
        error => {
            state.repository.report_change();
            transient(&error)
        }
    })?;
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    Copied::encode(&draft.tagged(snapshot::took_tag(took_ms)))
}

/// Renews the lease; returns when it is known to be lost. A provisioner that does not answer may be starting again.
async fn lease_lost(context: &Context, lease: Duration) {
    let mut pause = RENEW_INTERVAL.min(lease / 3);
    loop {
        tokio::time::sleep(pause).await;
        match context.state.provisioner.renew_disks(&context.id).await {
            Ok(LeaseStatus::Held(lease)) => pause = RENEW_INTERVAL.min(lease / 3),
            Ok(LeaseStatus::Lost) => return,
            Err(error) => {
                tracing::warn!(operation = %context.id, %error, "the lease was not renewed; trying again");
                pause = RETRY_PAUSE;
            }
        }
    }
}

/// What only the draft needs may be collected at once; without this a collection waits until the draft is stale.
async fn discard(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    let Some(copied) = outputs.find::<Copied>("copy")? else {
        return Ok(());
    };
    let draft = copied.decode()?;
    let discarded = match context.state.repository.repository() {
        Ok(repository) => repository.discard(&draft).await.map_err(|error| with_causes(&error)),
        Err(closed) => Err(closed.to_string()),
    };
    if let Err(error) = discarded {
        tracing::warn!(operation = %context.id, error, "a draft was left to become stale by itself");
    }
    Ok(())
}

async fn seal(context: &Context, outputs: &Outputs) -> Result<Backup, StepError> {
    let state = &context.state;
    let draft = outputs.get::<Copied>("copy")?.decode()?;
    let repository = repository(state).await?;
    let id = snapshot_id(&BackupId::from(&context.id));
    let sealed = repository.seal(&draft, id).await.map_err(|error| match &error {
        SealBackupError::Store(_) => transient(&error),
        SealBackupError::DraftCheckFailed(read) => read_error(read, &error),
        _ => permanent(&error),
    })?;
    let backup = backup_of(&sealed).map_err(|foreign| permanent(&foreign))?;
    state.metrics.backup_sealed(&backup);
    state.repository.report_change();
    let event = BackupSealed(backup);
    if let Err(error) = state.bus.publish(&event).await {
        tracing::warn!(backup = %event.0.id, error = with_causes(&error), "a sealed backup was not published");
    }
    Ok(event.0)
}

/// An operation that ends undone left no backup. While the store stays away, what may have been sealed is left: it is
/// whole, and waiting for a person would help nobody.
async fn unseal(context: &Context, outputs: &Outputs) -> Result<(), StepError> {
    if outputs.find::<Copied>("copy")?.is_none() {
        return Ok(());
    }
    let until = Instant::now() + FORGET_RETRY_FOR;
    while let Err(error) = forget(context).await {
        if Instant::now() >= until {
            tracing::warn!(operation = %context.id, %error, "a backup may have been left in the store");
            break;
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
    Ok(())
}

async fn forget(context: &Context) -> Result<(), StepError> {
    let repository = repository(&context.state).await?;
    let id = snapshot_id(&BackupId::from(&context.id));
    repository.forget(id).await.map_err(|error| transient(&error))?;
    context.state.repository.report_change();
    Ok(())
}
