//! `loam repository hold`, `release` and `holds`: snapshots that are forgotten by no rule and by nobody.

use backup_repository::{Hold, SnapshotId};
use clap::Args;
use serde::Serialize;

use super::access::Access;
use super::answer::Answer;
use super::snapshots::{at, printable};
use super::which;
use super::work::Work;
use crate::cli::exit::Trouble;
use crate::cli::output::table;

#[derive(Debug, Args)]
pub(in crate::cli) struct HoldArgs {
    /// The snapshot: its id, or the first characters of it
    snapshot: String,
    /// Why, for who wants to forget it
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ReleaseArgs {
    /// The snapshot: its id, or the first characters of it
    snapshot: String,
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

pub(super) async fn hold(args: HoldArgs, work: &Work) -> Result<(), Trouble> {
    let repository = args.access.open(work).await?;
    let snapshot = which::find(&repository, &args.snapshot, None, work).await?.id;
    work.wait(repository.hold(snapshot, &args.reason)).await?;
    Answer::new(One { snapshot }).give(work.json, |one| println!("{} is held", one.snapshot))
}

pub(super) async fn release(args: ReleaseArgs, work: &Work) -> Result<(), Trouble> {
    let repository = args.access.open(work).await?;
    let snapshot = match args.snapshot.parse() {
        // A hold may have outlived its snapshot in a store that was meddled with.
        Ok(id) => id,
        Err(_) => which::find(&repository, &args.snapshot, None, work).await?.id,
    };
    work.wait(repository.release(snapshot)).await?;
    Answer::new(One { snapshot }).give(work.json, |one| println!("{} is not held", one.snapshot))
}

pub(super) async fn holds(args: HoldsArgs, work: &Work) -> Result<(), Trouble> {
    let repository = args.access.open(work).await?;
    let holds = work.wait(repository.holds()).await?.into_iter().map(HoldView::from).collect();
    Answer::new(Holds { holds }).give(work.json, |answer| {
        let rows = answer.holds.iter();
        let rows =
            rows.map(|hold| [hold.snapshot.to_string(), at(hold.since_unix_ms), printable(&hold.reason)]);
        table(["SNAPSHOT", "SINCE", "REASON"], rows.collect(), "nothing is held");
    })
}
