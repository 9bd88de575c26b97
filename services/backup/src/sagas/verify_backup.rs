//! A verification: every byte of a backup is read back from the store, opened and hashed.
//!
//! ```text
//!   resolve   which backup is meant, once and for all
//!   verify    read everything; damage ends the operation with a sentence that names it
//! ```
//!
//! It changes nothing; its undo only gives the place back.

use std::time::Duration;

use backup_domain::findings;
use backup_repository::{Problem, Progress, ReadError, VerifyError, VerifyScope};
use contract::backup::VerifyBackup;
use contract::{BackupId, ByteCount, Request};
use operation::{Context, Work};
use saga::{Step, StepFuture, Trail, Trouble, output};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::World;
use super::work::{lasting, leave, metered, passing, repository, resolve_now, snapshot, take};
use crate::actors::Trade;

/// Reading the list of backups from a slow store.
const RESOLVE_MAX: Duration = Duration::from_secs(150);
/// A large backup over a slow line.
const VERIFY_MAX: Duration = Duration::from_secs(48 * 3600);

type Here = Context<World, VerifyBackup>;

/// The work that `VerifyBackup` begins.
pub struct Verify;

/// What a verification that found nothing wrong says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The backup.
    pub backup: BackupId,
    /// Pieces that were opened and hashed.
    pub pieces: u64,
    /// Bytes read from the store.
    pub bytes_read: ByteCount,
}

impl Work for Verify {
    const KIND: &'static str = VerifyBackup::NAME;
    type World = World;
    type Input = VerifyBackup;

    fn about(input: &VerifyBackup) -> String {
        input.backup.to_string()
    }

    fn steps() -> Vec<Step<Here>> {
        vec![
            Step::new("resolve", RESOLVE_MAX, resolve),
            Step::new("verify", VERIFY_MAX, verify).undone_by(give_back),
        ]
    }
}

fn resolve<'a>(context: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move { output(&resolve_now(&context.world, &context.input.backup).await?) })
}

fn verify<'a>(context: &'a Here, trail: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        let backup: BackupId = trail.of("resolve")?;
        take(context, Trade::Read).await?;
        let verified = read_all(context, backup).await;
        leave(context).await?;
        if let Err(Trouble::Passing(_)) = &verified {
            context.world.library.look_again().await;
        }
        verified
    })
}

async fn read_all(context: &Here, backup: BackupId) -> Result<Value, Trouble> {
    let repository = repository(&context.world).await?;
    let snapshot = snapshot(&repository, &backup).await?;
    let progress = Progress::new().into();
    let work = repository.verify(VerifyScope::Snapshot(&snapshot), &progress, &context.cancel);
    let report = metered(&context.meter, &progress, work).await.map_err(|error| match error {
        VerifyError::Read(ReadError::Store(_) | ReadError::Index(_)) => passing(&error),
        error => lasting(&error),
    })?;
    if !report.is_sound() {
        context.world.metrics.verified("damaged");
        let named: Vec<String> = report.problems.iter().map(in_words).collect();
        return Err(Trouble::Final(findings::sentence(report.problems_total, &named)));
    }
    context.world.metrics.verified("sound");
    output(&Verified { backup, pieces: report.blobs, bytes_read: ByteCount(progress.read().read_bytes) })
}

fn in_words(problem: &Problem) -> String {
    match problem {
        Problem::Pack { name, damage } => format!("pack {name}: {damage}"),
        Problem::Blob { pack, damage, .. } => format!("in pack {pack}: {damage}"),
        Problem::Snapshot { id, damage } => format!("snapshot {id}: {damage}"),
        Problem::Disk { disk, at_byte, damage, .. } => format!("disk {disk} at byte {at_byte}: {damage}"),
    }
}

fn give_back<'a>(context: &'a Here, _: &'a Trail<'a>) -> StepFuture<'a> {
    Box::pin(async move {
        leave(context).await?;
        output(&())
    })
}
