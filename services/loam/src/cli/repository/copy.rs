//! `loam repository copy`: into a second repository, which may be anywhere and has keys of its own.

use std::sync::Arc;

use backup_repository::{Progress, Repository, SnapshotId, StoreUrl};
use clap::Args;
use serde::Serialize;

use super::access::{Access, CompressionArgs, DryRun, SECOND, SecondRepositoryArgs};
use super::answer::Answer;
use super::work::{CommandContext, shown};
use super::{errors, snapshot_arg};
use crate::cli::exit::CliError;

#[derive(Debug, Args)]
pub(in crate::cli) struct CopyArgs {
    /// Snapshots to copy: `latest`, ids or their first characters
    #[arg(value_name = "SNAPSHOT", required_unless_present = "all", conflicts_with = "all")]
    snapshots: Vec<String>,
    /// Copy all snapshots
    #[arg(long)]
    all: bool,
    /// Only snapshots of this machine
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    compression: CompressionArgs,
    #[command(flatten)]
    access: Access,
    /// Location of the repository to copy to
    #[arg(long = "to", value_name = "URL", help_heading = SECOND)]
    to_store: StoreUrl,
    #[command(flatten)]
    second: SecondRepositoryArgs,
}

#[derive(Serialize)]
struct Copied {
    copied: Vec<SnapshotId>,
    already_there: Vec<SnapshotId>,
}

pub(super) async fn run(args: CopyArgs, work: &CommandContext) -> Result<(), CliError> {
    let other = args.access.second(args.to_store.clone(), args.second.clone())?.compressing(args.compression);
    let repository = args.access.open_to_read(work).await?;
    let other = other.open(work).await?;
    let ids = chosen(&repository, &args, work).await?;
    if args.dry.dry_run {
        let there = work.wait(other.snapshot_ids()).await?;
        let (already_there, copied) = ids.into_iter().partition(|id| there.contains(id));
        return show(Copied { copied, already_there }, true, work);
    }
    let progress = Arc::new(Progress::new());
    let copying = repository.copy_to(&other, &ids, &progress, &work.cancel);
    let report = shown("copy", &progress, Box::pin(copying)).await.map_err(errors::of)?;
    show(Copied { copied: report.copied, already_there: report.already_there }, false, work)
}

fn show(copied: Copied, is_dry: bool, work: &CommandContext) -> Result<(), CliError> {
    Answer::new(copied).dry(is_dry).give(work.json, |done, text| {
        text.line(format_args!(
            "copied {} snapshots; {} were copied before",
            done.copied.len(),
            done.already_there.len()
        ));
    })
}

async fn chosen(
    repository: &Repository,
    args: &CopyArgs,
    work: &CommandContext,
) -> Result<Vec<SnapshotId>, CliError> {
    let mut ids = Vec::new();
    if args.all {
        for snapshot in work.wait(repository.snapshots()).await? {
            if args.machine.as_ref().is_none_or(|machine| *machine == snapshot.contents.machine) {
                ids.push(snapshot.id);
            }
        }
    }
    for name in &args.snapshots {
        ids.push(snapshot_arg::find(repository, name, args.machine.as_deref(), work).await?.id);
    }
    Ok(ids)
}
