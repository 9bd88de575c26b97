//! `loam repository hold`, `release` and `holds`: snapshots that neither rules nor people can remove.

use backup_repository::{Hold, SnapshotId};
use clap::Args;
use serde::Serialize;

use super::access::{Access, DryRun};
use super::answer::Answer;
use super::snapshot_arg;
use super::snapshots::at;
use super::work::CommandContext;
use crate::cli::exit::CliError;
use crate::cli::output::{cut, whole};

#[derive(Debug, Args)]
pub(in crate::cli) struct HoldArgs {
    /// Snapshot: `latest`, an id or its first characters
    snapshot: String,
    /// Why it is held, shown to whoever tries to remove it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ReleaseArgs {
    /// Snapshot: `latest`, an id or its first characters
    snapshot: String,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct HoldsArgs {
    #[command(flatten)]
    access: Access,
}

#[derive(Serialize)]
struct One {
    snapshot: SnapshotId,
}

#[derive(Serialize)]
struct Holds {
    holds: Vec<HoldView>,
}

#[derive(Serialize)]
struct HoldView {
    snapshot: SnapshotId,
    reason: String,
    since_unix_ms: u64,
}

impl From<Hold> for HoldView {
    fn from(hold: Hold) -> HoldView {
        let Hold { snapshot, reason, since_unix_ms } = hold;
        HoldView { snapshot, reason, since_unix_ms }
    }
}

pub(super) async fn hold(args: HoldArgs, work: &CommandContext) -> Result<(), CliError> {
    let repository = args.access.open_to_change(args.dry.dry_run, work).await?;
    let snapshot = snapshot_arg::find(&repository, &args.snapshot, None, work).await?.id;
    work.wait(repository.hold(snapshot, &args.reason)).await?;
    let answer = Answer::new(One { snapshot }).dry(args.dry.dry_run);
    answer.give(work.json, |one, text| text.line(format_args!("snapshot {} is held", one.snapshot)))
}

pub(super) async fn release(args: ReleaseArgs, work: &CommandContext) -> Result<(), CliError> {
    let repository = args.access.open_to_change(args.dry.dry_run, work).await?;
    let snapshot = match args.snapshot.parse() {
        // A hold may have outlived its snapshot in a store that was tampered with.
        Ok(id) => id,
        Err(_) => snapshot_arg::find(&repository, &args.snapshot, None, work).await?.id,
    };
    work.wait(repository.release(snapshot)).await?;
    let answer = Answer::new(One { snapshot }).dry(args.dry.dry_run);
    answer.give(work.json, |one, text| text.line(format_args!("snapshot {} is not held", one.snapshot)))
}

pub(super) async fn holds(args: HoldsArgs, work: &CommandContext) -> Result<(), CliError> {
    let repository = args.access.open(work).await?;
    let holds = work.wait(repository.holds()).await?.into_iter().map(HoldView::from).collect();
    Answer::new(Holds { holds }).give(work.json, |answer, text| {
        let rows = answer.holds.iter();
        let rows = rows.map(|hold| [hold.snapshot.to_string(), at(hold.since_unix_ms), hold.reason.clone()]);
        text.table([whole("SNAPSHOT"), whole("SINCE"), cut("REASON")], rows.collect(), "no snapshot is held");
    })
}
