//! `loam repository verify` and `rebuild-index`.

use std::sync::Arc;
use std::time::Duration;

use backup_repository::{
    Problem, Progress, QuarantineReport, RebuildIndexReport, Snapshot, VerifyReport, VerifyScope, WriteOnly,
};
use clap::Args;
use contract::ByteCount;
use serde::Serialize;

use super::access::{Access, DryRun};
use super::answer::Answer;
use super::values::duration;
use super::work::{CommandContext, shown};
use super::{errors, snapshot_arg};
use crate::cli::exit::CliError;

/// Problems that are shown to people; programs get all that the report names.
const PROBLEMS_SHOWN: usize = 20;

#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyArgs {
    /// Snapshot of which everything is checked: `latest`, an id or its first characters
    #[arg(value_name = "SNAPSHOT", required_unless_present_any = ["all", "bytes_max", "not_verified_within"],
        conflicts_with_all = ["all", "bytes_max", "not_verified_within"])]
    snapshot: Option<String>,
    /// Machine whose latest snapshot is meant; needed where there are several
    #[arg(long, value_name = "NAME", requires = "snapshot")]
    machine: Option<String>,
    /// Check every pack and every snapshot
    #[arg(long, conflicts_with_all = ["bytes_max", "not_verified_within"])]
    all: bool,
    /// Check at most SIZE of packs, such as 10G (powers of 1024), first those that were checked longest ago
    #[arg(long, value_name = "SIZE")]
    bytes_max: Option<ByteCount>,
    /// Skip packs that were checked and found intact within TIME, such as 30d (m: minutes, M: months)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    not_verified_within: Option<Duration>,
    /// Set damaged packs aside and keep what is intact in them
    #[arg(long)]
    quarantine: bool,
    /// With --quarantine: show what would be done, and change nothing
    #[arg(short = 'n', long, requires = "quarantine")]
    dry_run: bool,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RebuildIndexArgs {
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    access: Access,
}

#[derive(Serialize)]
struct Verified {
    packs: u64,
    packs_left: u64,
    blobs: u64,
    snapshots: u64,
    problems_total: u64,
    problems: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quarantine: Option<Quarantine>,
}

#[derive(Serialize)]
struct Quarantine {
    packs: Vec<String>,
    blobs_saved: u64,
    blobs_lost: u64,
}

pub(super) async fn verify(args: VerifyArgs, work: &CommandContext) -> Result<(), CliError> {
    let repository = args.access.open_to_change(args.dry_run, work).await?;
    if !repository.can_read() {
        return Err(errors::of(WriteOnly));
    }
    let snapshot: Option<Snapshot> = match &args.snapshot {
        None => None,
        Some(name) => Some(snapshot_arg::find(&repository, name, args.machine.as_deref(), work).await?),
    };
    let scope = match &snapshot {
        Some(snapshot) => VerifyScope::Snapshot(snapshot),
        None if args.all => VerifyScope::Everything,
        None => VerifyScope::Rolling {
            bytes_max: args.bytes_max.map_or(u64::MAX, |bytes| bytes.0),
            older_than: args.not_verified_within.unwrap_or_default(),
        },
    };
    let progress = Arc::new(Progress::new());
    let verifying = repository.verify(scope, &progress, &work.cancel);
    let report = shown("verify", &progress, Box::pin(verifying)).await.map_err(super::errors::of)?;
    let quarantine = match args.quarantine && !report.is_sound() {
        true => Some(work.wait(repository.quarantine(&report)).await?),
        false => None,
    };
    let (warning, failure) = judged(&report, quarantine.as_ref());
    let verified = Verified::new(report, quarantine);
    Answer::new(verified).warn(warning).fail(failure).give(work.json, |done, text| {
        text.line(format_args!(
            "checked {} packs, {} blobs, {} snapshots",
            done.packs, done.blobs, done.snapshots
        ));
        if done.packs_left > 0 {
            text.line(format_args!("not checked this time: {} packs", done.packs_left));
        }
        for problem in done.problems.iter().take(PROBLEMS_SHOWN) {
            text.line(format_args!("problem: {problem}"));
        }
        if done.problems_total > PROBLEMS_SHOWN as u64 {
            text.line(format_args!(
                "and {} more (--json names more of them)",
                done.problems_total - PROBLEMS_SHOWN as u64
            ));
        }
        if let Some(Quarantine { packs, blobs_saved, blobs_lost }) = &done.quarantine {
            text.line(format_args!(
                "in quarantine: {} packs; blobs saved {blobs_saved}, lost {blobs_lost}",
                packs.len()
            ));
        }
    })
}

/// A warning where nothing is lost, else a failure.
fn judged(report: &VerifyReport, quarantine: Option<&QuarantineReport>) -> (Option<String>, Option<String>) {
    if report.is_sound() {
        return (None, None);
    }
    let found = format!("{} problems were found", report.problems_total);
    let in_packs = |problem: &Problem| matches!(problem, Problem::Pack { .. } | Problem::Blob { .. });
    let all_are_named = report.problems.len() as u64 == report.problems_total;
    match quarantine {
        Some(done) if done.blobs_lost == 0 && all_are_named && report.problems.iter().all(in_packs) => {
            (Some(format!("{found}, and nothing was lost by them")), None)
        }
        _ => (None, Some(found)),
    }
}

impl Verified {
    fn new(report: VerifyReport, quarantine: Option<QuarantineReport>) -> Verified {
        Verified {
            packs: report.packs,
            packs_left: report.packs_left,
            blobs: report.blobs,
            snapshots: report.snapshots,
            problems_total: report.problems_total,
            problems: report.problems.iter().map(in_words).collect(),
            quarantine: quarantine.map(|done| Quarantine {
                packs: done.packs,
                blobs_saved: done.blobs_saved,
                blobs_lost: done.blobs_lost,
            }),
        }
    }
}

fn in_words(problem: &Problem) -> String {
    match problem {
        Problem::Pack { name, damage } => format!("{name}: {damage}"),
        Problem::Blob { pack, id, damage } => format!("blob {id} in {pack}: {damage}"),
        Problem::Snapshot { id, damage } => format!("snapshot {id}: {damage}"),
        Problem::Disk { snapshot, disk, at_byte, damage } => {
            format!("snapshot {snapshot}, {disk} from byte {at_byte} on: {damage}")
        }
    }
}

#[derive(Serialize)]
struct Rebuilt {
    packs: u64,
    blobs: u64,
    unreadable: Vec<Unreadable>,
}

#[derive(Serialize)]
struct Unreadable {
    pack: String,
    why: String,
}

pub(super) async fn rebuild_index(args: RebuildIndexArgs, work: &CommandContext) -> Result<(), CliError> {
    let repository = args.access.open_to_change(args.dry.dry_run, work).await?;
    let progress = Arc::new(Progress::new());
    let rebuilding = work.wait(repository.rebuild_index(&progress));
    let RebuildIndexReport { packs, blobs, unreadable_packs: unreadable } =
        shown("reading what the packs hold", &progress, Box::pin(rebuilding)).await?;
    let warnings: Vec<_> =
        unreadable.iter().map(|(pack, why)| format!("{pack} was left out: {why}")).collect();
    let unreadable = unreadable.into_iter().map(|(pack, why)| Unreadable { pack, why }).collect();
    Answer::new(Rebuilt { packs, blobs, unreadable })
        .dry(args.dry.dry_run)
        .warn(warnings)
        .give(work.json, |done, text| {
            text.line(format_args!("the index names {} blobs in {} packs", done.blobs, done.packs))
        })
}
