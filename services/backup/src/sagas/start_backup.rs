//! A backup: the disks at one moment, copied into the store and sealed.
//!
//! ```text
//!   queue        wait for a place among the copyists            undo: give it back
//!   open_disks   the provisioner opens doors at one moment      undo: close them, or leave them to their lease
//!   copy         the engine reads the doors, the lease is kept  undo: give the draft up
//!   close_disks  close them, or leave them to their lease
//!   seal         the backup exists; tell it                     undo: it does not
//! ```
//!
//! Sealing is last, so that nothing that fails later can turn a sealed backup back. The snapshot's id is the
//! operation's: sealing twice is sealing once. What `copy` brings is a draft that another process can seal.

use std::time::{Duration, Instant};

use backup_domain::{catalogue, plan};
use backup_repository::{BackupRequest, CopyError, Draft, Progress, ReadError, SealError};
use contract::backup::{BackupSealed, StartBackup};
use contract::provisioner::OpenedDisks;
use contract::{BackupId, Request, Timestamp};
use operation::{Context, Work};
use saga::{Step, StepFuture, Trail, Trouble, output};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::World;
use super::work::{lasting, leave, metered, passing, repository, take};
use crate::actors::Trade;
use crate::adapters::snapshots::{backup_of, in_words, snapshot_id, stored};
use crate::provisioner::Lease;

/// Waiting for other backups: a night of them.
const QUEUE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Freezing, opening, thawing, and one repetition of the question.
const OPEN_MAX: Duration = Duration::from_secs(200);
/// A machine that is being started or stopped is free again after this.
const OPEN_PATIENCE: Duration = Duration::from_secs(120);
/// A large disk over a slow line.
const COPY_MAX: Duration = Duration::from_secs(48 * 3600);
/// Closing is tried this long; then the lease does it.
const CLOSE_PATIENCE: Duration = Duration::from_secs(60);
const CLOSE_MAX: Duration = Duration::from_secs(200);
/// One small object, with the store's own retries.
const SEAL_MAX: Duration = Duration::from_secs(600);
/// A copied backup is worth waiting for; while it waits it holds neither doors nor a place.
const SEAL_PATIENCE: Duration = Duration::from_secs(3600);
/// How long the undo of sealing waits for the store.
const FORGET_PATIENCE: Duration = Duration::from_secs(60);
/// The lease is renewed this often, or sooner where it is short.
const RENEW_EVERY: Duration = Duration::from_secs(30);
/// After a question that was not answered.
const AGAIN: Duration = Duration::from_secs(2);

type Here = Context<World, StartBackup>;

/// The work that `StartBackup` begins.
pub struct Start;

impl Work for Start {
    const KIND: &'static str = StartBackup::NAME;
    type World = World;
    type Input = StartBackup;

    fn about(input: &StartBackup) -> String {
        input.vm.to_string()
    }

    fn steps() -> Vec<Step<Here>> {
        vec![
            Step::new("queue", QUEUE_MAX, queue).undone_by(leave_queue),
            Step::new("open_disks", OPEN_MAX, open_disks).undone_by(close_disks).with_patience(OPEN_PATIENCE),
            Step::new("copy", COPY_MAX, copy).undone_by(discard),
            Step::new("close_disks", CLOSE_MAX, close_disks),
            Step::new("seal", SEAL_MAX, seal).undone_by(unseal).with_patience(SEAL_PATIENCE),
        ]
    }
}

/// Doors, and since when.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Moment {
    opened: OpenedDisks,
    taken: Timestamp,
}

/// A draft as it is kept in the journal: MessagePack in hexadecimal digits, because a JSON list of bytes is four
/// times as long.
#[derive(Debug, Serialize, Deserialize)]
struct Copied {
    draft: String,
}

fn queue<'a>(context: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        take(context, Trade::Copy).await?;
        output(&())
    })
}

fn leave_queue<'a>(context: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        leave(context).await?;
        context.world.metrics.backup_undone();
        output(&())
    })
}

fn open_disks<'a>(context: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move { output(&open(context).await?) })
}

async fn open(context: &Here) -> Result<Moment, Trouble> {
    let opened = context.world.provisioner.open_disks(&context.input.vm, &context.id).await?;
    plan::check_doors(&context.world.host, &opened).map_err(|unusable| lasting(&unusable))?;
    Ok(Moment { opened, taken: chrono::Utc::now() })
}

fn close_disks<'a>(context: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let until = Instant::now() + CLOSE_PATIENCE;
        while let Err(trouble) = context.world.provisioner.close_disks(&context.id).await {
            if Instant::now() >= until {
                tracing::warn!(operation = %context.id, %trouble, "the disks were left to their lease");
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        leave(context).await?;
        output(&())
    })
}

fn copy<'a>(context: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(copy_disks(context, trail))
}

async fn copy_disks(context: &Here, trail: &Trail<'_>) -> Result<Value, Trouble> {
    let world = &context.world;
    // After a crash the place that `queue` took is free again.
    take(context, Trade::Copy).await?;
    let repository = repository(world).await?;
    let Moment { opened, taken } = still_open(context, trail.of("open_disks")?).await?;
    let mut disks = Vec::with_capacity(opened.doors.len());
    for door in &opened.doors {
        let disk = world.doors.reach(door).await.map_err(|error| passing(&error))?;
        disks.push((door.disk.to_string(), disk));
    }
    let request = BackupRequest {
        machine: context.input.vm.to_string(),
        taken_at_unix_ms: u64::try_from(taken.timestamp_millis()).unwrap_or_default(),
        tags: catalogue::tags(context.input.schedule.as_ref()),
        disks,
        streams: Vec::new(),
        definition: plan::write_definition(&opened.definition),
        // Doors do not say yet what changed since the last backup.
        parent: None,
        consistency: stored(opened.consistency),
    };
    let (progress, began) = (Progress::new().into(), Instant::now());
    let work = metered(&context.meter, &progress, repository.copy(request, &progress, &context.cancel));
    let copied = tokio::select! {
        copied = work => copied,
        () = until_gone(context, Duration::from_secs(opened.lease_seconds.into())) => {
            return Err(Trouble::Passing("the doors to the disks were closed; opening them anew".into()));
        }
    };
    let draft = match copied {
        Ok(draft) => draft,
        Err(error @ (CopyError::DiskNames | CopyError::Cancelled)) => return Err(lasting(&error)),
        Err(error) => {
            world.library.look_again().await;
            return Err(passing(&error));
        }
    };
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    write_down(&draft.tagged(catalogue::took_tag(took_ms)))
}

/// The doors of the trail while their lease lives; else new ones, at a new moment. Copying begins at its beginning
/// either way, so that all that is sealed is of one moment.
async fn still_open(context: &Here, before: Moment) -> Result<Moment, Trouble> {
    match context.world.provisioner.renew_disks(&context.id).await? {
        Lease::Goes(_) => Ok(before),
        Lease::Gone => open(context).await,
    }
}

/// Keeps the lease; returns when it is known to be gone. A provisioner that does not answer may be starting again.
async fn until_gone(context: &Here, lease: Duration) {
    let mut pause = RENEW_EVERY.min(lease / 3);
    loop {
        tokio::time::sleep(pause).await;
        match context.world.provisioner.renew_disks(&context.id).await {
            Ok(Lease::Goes(lease)) => pause = RENEW_EVERY.min(lease / 3),
            Ok(Lease::Gone) => return,
            Err(trouble) => {
                tracing::warn!(operation = %context.id, %trouble, "the lease was not renewed; asking again");
                pause = AGAIN;
            }
        }
    }
}

fn write_down(draft: &Draft) -> Result<Value, Trouble> {
    let bytes = rmp_serde::to_vec_named(draft).map_err(|error| lasting(&error))?;
    output(&Copied { draft: hex::encode(bytes) })
}

fn read_back(copied: &Copied) -> Result<Draft, Trouble> {
    let bytes = hex::decode(&copied.draft).map_err(|error| lasting(&error))?;
    rmp_serde::from_slice(&bytes).map_err(|error| lasting(&error))
}

/// What only the draft needs may be collected at once; without this a collection waits until the draft is stale.
fn discard<'a>(context: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        if let Some(copied) = trail.if_done::<Copied>("copy") {
            let repository = context.world.library.repository().await;
            let discarded = match &repository {
                Ok(repository) => {
                    repository.discard(&read_back(&copied)?).await.map_err(|error| in_words(&error))
                }
                Err(shut) => Err(shut.to_string()),
            };
            if let Err(why) = discarded {
                tracing::warn!(operation = %context.id, why, "a draft was left to become stale by itself");
            }
        }
        output(&())
    })
}

fn seal<'a>(context: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let world = &context.world;
        let draft = read_back(&trail.of("copy")?)?;
        let repository = repository(world).await?;
        let id = snapshot_id(&BackupId::from(&context.id));
        let sealed = repository.seal(&draft, id).await.map_err(|error| match error {
            SealError::Store(_) | SealError::Unchecked(ReadError::Store(_) | ReadError::Index(_)) => {
                passing(&error)
            }
            error => lasting(&error),
        })?;
        let backup = backup_of(&sealed).map_err(|not_ours| lasting(&not_ours))?;
        world.metrics.sealed(&backup);
        world.library.look_again().await;
        let event = BackupSealed(backup);
        if let Err(error) = world.bus.publish(&event).await {
            tracing::warn!(backup = %event.0.id, error = in_words(&error), "nobody was told of a sealed backup");
        }
        output(&event.0)
    })
}

/// An operation that ends undone left no backup, and nobody was told of one. Where the store stays away, what may
/// have been sealed is left: it is whole, and waiting for a person would help nobody.
fn unseal<'a>(context: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let until = Instant::now() + FORGET_PATIENCE;
        while trail.if_done::<Copied>("copy").is_some()
            && let Err(trouble) = forget(context).await
        {
            if Instant::now() >= until {
                tracing::warn!(operation = %context.id, %trouble, "a backup may have been left in the store");
                break;
            }
            tokio::time::sleep(AGAIN).await;
        }
        output(&())
    })
}

async fn forget(context: &Here) -> Result<(), Trouble> {
    let repository = repository(&context.world).await?;
    let id = snapshot_id(&BackupId::from(&context.id));
    repository.forget(id).await.map_err(|error| passing(&error))?;
    context.world.library.look_again().await;
    Ok(())
}
