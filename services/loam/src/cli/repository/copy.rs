//! `loam repository copy`: into a second repository, which may be anywhere and has keys of its own.

use std::sync::Arc;

use backup_repository::{Progress, Repository, SnapshotId};
use clap::Args;
use serde::Serialize;

use super::access::{Access, CompressionArgs, DryRun, SecondArgs};
use super::answer::Answer;
use super::work::{Work, shown};
use super::{trouble, which};
use crate::cli::exit::Trouble;

#[derive(Debug, Args)]
pub(in crate::cli) struct CopyArgs {
    /// The snapshots: `latest`, ids, or the first characters of them
    #[arg(value_name = "SNAPSHOT", required_unless_present = "all", conflicts_with = "all")]
    snapshots: Vec<String>,
    /// All snapshots
    #[arg(long)]
    all: bool,
    /// Only those of this machine
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    compression: CompressionArgs,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    second: SecondArgs,
}

#[derive(Serialize)]
struct Copied {
    copied: Vec<SnapshotId>,
    already_there: Vec<SnapshotId>,
}

pub(super) async fn run(args: CopyArgs, work: &Work) -> Result<(), Trouble> {
    let other = args.access.second(args.second.clone())?;
    let other =
        other.ok_or_else(|| trouble::usage("say where to copy to with --to"))?.compressing(args.compression);
    let repository = args.access.open_to_read(work).await?;
    let other = other.open(work).await?;
    let ids = chosen(&repository, &args, work).await?;
    if args.dry.dry_run {
        let there = work.wait(other.snapshot_ids()).await?;
        let (already_there, copied) = ids.into_iter().partition(|id| there.contains(id));
        return tell(Copied { copied, already_there }, true, work);
    }
    let progress = Arc::new(Progress::new());
    let copying = repository.copy_to(&other, &ids, &progress, &work.cancel);
    let report = shown("copy", &progress, Box::pin(copying)).await.map_err(trouble::of)?;
    tell(Copied { copied: report.copied, already_there: report.already_there }, false, work)
}

fn tell(copied: Copied, is_dry: bool, work: &Work) -> Result<(), Trouble> {
    Answer::new(copied).dry(is_dry).give(work.json, |done| {
        println!("copied {} snapshots; {} were there already", done.copied.len(), done.already_there.len());
    })
}

async fn chosen(repository: &Repository, args: &CopyArgs, work: &Work) -> Result<Vec<SnapshotId>, Trouble> {
    let mut ids = Vec::new();
    if args.all {
        for snapshot in work.wait(repository.snapshots()).await? {
            if args.machine.as_ref().is_none_or(|machine| *machine == snapshot.contents.machine) {
                ids.push(snapshot.id);
            }
        }
    }
    for word in &args.snapshots {
        ids.push(which::find(repository, word, args.machine.as_deref(), work).await?.id);
    }
    Ok(ids)
}
