//! `loam repository diff`.

use backup_repository::{DiskDiff, SnapshotId};
use clap::Args;
use contract::ByteCount;
use serde::Serialize;

use super::access::Access;
use super::answer::Answer;
use super::snapshots::printable;
use super::which;
use super::work::Work;
use crate::cli::exit::Trouble;
use crate::cli::output::table;

#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArgs {
    /// The first snapshot: an id, or the first characters of one
    before: String,
    /// The second: an id, the first characters of one, or `latest`
    after: String,
    /// Name the places that differ, in bytes
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

pub(super) async fn run(args: DiffArgs, work: &Work) -> Result<(), Trouble> {
    let repository = args.access.open(work).await?;
    let before = which::find(&repository, &args.before, None, work).await?;
    let machine = Some(before.contents.machine.as_str());
    let after = which::find(&repository, &args.after, machine, work).await?;
    let view = |disk: DiskDiff| DiskView {
        differing_bytes: disk.bytes(),
        stretches: disk.ranges.len(),
        ranges: args.ranges.then(|| disk.ranges.iter().map(|range| [range.start, range.end]).collect()),
        name: disk.name,
        size_bytes_before: disk.size_bytes_before,
        size_bytes_after: disk.size_bytes_after,
    };
    let disks = work.wait(repository.diff(&before, &after)).await?.into_iter().map(view).collect();
    Answer::new(Diff { before: before.id, after: after.id, disks }).give(work.json, tell)
}

fn tell(diff: &Diff) {
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
    table(["DISK", "BEFORE", "AFTER", "DIFFERS IN", "STRETCHES"], rows.collect(), "neither has disks");
    for disk in &diff.disks {
        for [from, to] in disk.ranges.iter().flatten() {
            println!("{}  {from}..{to}", printable(&disk.name));
        }
    }
}
