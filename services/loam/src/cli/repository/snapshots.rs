//! `loam repository snapshots`.

use backup_repository::{Consistency, CopyStats, Shape, Snapshot, SnapshotId};
use chrono::DateTime;
use clap::Args;
use contract::ByteCount;
use serde::Serialize;

use super::access::Access;
use super::answer::Answer;
use super::work::Work;
use crate::cli::exit::Trouble;
use crate::cli::output::{table, time};

#[derive(Debug, Args)]
pub(in crate::cli) struct SnapshotsArgs {
    /// Only those of this machine
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// Only those with this tag; given more than once, with all of them
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    #[command(flatten)]
    access: Access,
}

/// A snapshot as it is shown.
#[derive(Serialize)]
pub(super) struct SnapshotView {
    pub id: SnapshotId,
    machine: String,
    taken_at_unix_ms: u64,
    tags: Vec<String>,
    consistency: Consistency,
    parent: Option<SnapshotId>,
    disks: Vec<DiskView>,
    stats: CopyStats,
}

/// A disk or stream as it is shown.
#[derive(Serialize)]
pub(super) struct DiskView {
    pub name: String,
    pub shape: Shape,
    pub size_bytes: u64,
    pub used_bytes: u64,
}

impl From<&Snapshot> for SnapshotView {
    fn from(snapshot: &Snapshot) -> SnapshotView {
        let contents = &snapshot.contents;
        SnapshotView {
            id: snapshot.id,
            machine: contents.machine.clone(),
            taken_at_unix_ms: contents.taken_at_unix_ms,
            tags: contents.tags.clone(),
            consistency: contents.consistency,
            parent: contents.parent,
            disks: disks(snapshot),
            stats: contents.stats,
        }
    }
}

pub(super) fn disks(snapshot: &Snapshot) -> Vec<DiskView> {
    let view = |disk: &backup_repository::DiskRecord| DiskView {
        name: disk.name.clone(),
        shape: disk.shape,
        size_bytes: disk.size_bytes,
        used_bytes: disk.used_bytes,
    };
    snapshot.contents.disks.iter().map(view).collect()
}

/// A time of a snapshot or key, for people.
pub(super) fn at(unix_ms: u64) -> String {
    let known = i64::try_from(unix_ms).ok().and_then(DateTime::from_timestamp_millis);
    known.map_or_else(|| format!("{unix_ms} ms after 1970"), |known| time(&known))
}

/// A word that comes from a guest, or from a host that may only store: what would steer the terminal is shown, not sent.
pub(super) fn printable(word: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
    word.chars().map(shown).collect()
}

#[derive(Serialize)]
struct Snapshots {
    snapshots: Vec<SnapshotView>,
}

pub(super) async fn run(args: SnapshotsArgs, work: &Work) -> Result<(), Trouble> {
    let repository = args.access.open(work).await?;
    let wanted = |snapshot: &Snapshot| {
        let contents = &snapshot.contents;
        args.machine.as_ref().is_none_or(|machine| *machine == contents.machine)
            && args.tag.iter().all(|tag| contents.tags.contains(tag))
    };
    let all = work.wait(repository.snapshots()).await?;
    let snapshots = all.iter().filter(|snapshot| wanted(snapshot)).map(SnapshotView::from).collect();
    Answer::new(Snapshots { snapshots }).give(work.json, |answer| list(&answer.snapshots))
}

fn list(snapshots: &[SnapshotView]) {
    let rows = snapshots.iter().map(|snapshot| {
        let disks: Vec<_> = snapshot.disks.iter().map(|disk| disk.name.as_str()).collect();
        let used = snapshot.disks.iter().map(|disk| disk.used_bytes).sum();
        [
            snapshot.id.to_string(),
            printable(&snapshot.machine),
            at(snapshot.taken_at_unix_ms),
            printable(&disks.join(" ")),
            ByteCount(used).to_string(),
            ByteCount(snapshot.stats.new_bytes).to_string(),
            ByteCount(snapshot.stats.stored_bytes).to_string(),
            printable(&snapshot.tags.join(" ")),
        ]
    });
    let head = ["SNAPSHOT", "MACHINE", "TAKEN", "DISKS", "USED", "NEW", "STORED", "TAGS"];
    table(head, rows.collect(), "no snapshots; `loam repository backup` makes one");
}
