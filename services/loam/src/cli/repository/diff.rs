//! `loam repository diff`.

use backup_repository::{DiskDiff, SnapshotId};
use clap::Args;
use contract::ByteCount;
use serde::Serialize;

use super::access::Access;
use super::answer::Answer;
use super::snapshot_arg;
use super::work::CommandContext;
use crate::cli::exit::CliError;
use crate::cli::output::{Text, cut, number, printable};

#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArgs {
    /// First snapshot: `latest`, an id or its first characters
    before: String,
    /// Second snapshot: `latest`, an id or its first characters
    after: String,
    /// Show the byte ranges that differ
    #[arg(long)]
    ranges: bool,
    #[command(flatten)]
    access: Access,
}

#[derive(Serialize)]
struct Diff {
    before: SnapshotId,
    after: SnapshotId,
    disks: Vec<DiskView>,
}

#[derive(Serialize)]
struct DiskView {
    name: String,
    size_bytes_before: Option<u64>,
    size_bytes_after: Option<u64>,
    differing_bytes: u64,
    stretches: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    ranges: Option<Vec<[u64; 2]>>,
}

pub(super) async fn run(args: DiffArgs, work: &CommandContext) -> Result<(), CliError> {
    let repository = args.access.open(work).await?;
    let before = snapshot_arg::find(&repository, &args.before, None, work).await?;
    let machine = Some(before.contents.machine.as_str());
    let after = snapshot_arg::find(&repository, &args.after, machine, work).await?;
    let view = |disk: DiskDiff| DiskView {
        differing_bytes: disk.bytes(),
        stretches: disk.ranges.len(),
        ranges: args.ranges.then(|| disk.ranges.iter().map(|range| [range.start, range.end]).collect()),
        name: disk.name,
        size_bytes_before: disk.size_bytes_before,
        size_bytes_after: disk.size_bytes_after,
    };
    let disks = work.wait(repository.diff(&before, &after)).await?.into_iter().map(view).collect();
    Answer::new(Diff { before: before.id, after: after.id, disks }).give(work.json, lines)
}

fn lines(diff: &Diff, text: &mut Text) {
    let size = |bytes: Option<u64>| bytes.map_or_else(|| "-".into(), |bytes| ByteCount(bytes).to_string());
    let rows = diff.disks.iter().map(|disk| {
        [
            printable(&disk.name),
            size(disk.size_bytes_before),
            size(disk.size_bytes_after),
            ByteCount(disk.differing_bytes).to_string(),
            disk.stretches.to_string(),
        ]
    });
    let head = [cut("DISK"), number("BEFORE"), number("AFTER"), number("DIFFERENT"), number("RANGES")];
    text.table(head, rows.collect(), "neither snapshot has disks");
    for disk in &diff.disks {
        for [from, to] in disk.ranges.iter().flatten() {
            text.line(format_args!("{}  {from}..{to}", printable(&disk.name)));
        }
    }
}
