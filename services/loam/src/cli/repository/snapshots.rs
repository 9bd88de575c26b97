//! `loam repository snapshots`.

use backup_repository::{BackupStats, Consistency, RecordKind, Snapshot, SnapshotId};
use chrono::DateTime;
use clap::Args;
use contract::ByteCount;
use serde::Serialize;

use super::access::Access;
use super::answer::Answer;
use super::work::CommandContext;
use crate::cli::exit::CliError;
use crate::cli::output::{Text, cut, extra, number, short, short_length, time, whole};

#[derive(Debug, Args)]
pub(in crate::cli) struct SnapshotsArgs {
    /// Only snapshots of this machine
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// Only snapshots with this tag; repeated: with all of them
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
    stats: BackupStats,
    stored_as_failover: bool,
}

/// A disk or stream as it is shown.
#[derive(Serialize)]
pub(super) struct DiskView {
    pub name: String,
    pub kind: RecordKind,
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
            stored_as_failover: contents.stored_as_failover,
        }
    }
}

pub(super) fn disks(snapshot: &Snapshot) -> Vec<DiskView> {
    let view = |disk: &backup_repository::DiskRecord| DiskView {
        name: disk.name.clone(),
        kind: disk.kind,
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

#[derive(Serialize)]
struct Snapshots {
    snapshots: Vec<SnapshotView>,
}

pub(super) async fn run(args: SnapshotsArgs, work: &CommandContext) -> Result<(), CliError> {
    let repository = args.access.open(work).await?;
    let wanted = |snapshot: &Snapshot| {
        let contents = &snapshot.contents;
        args.machine.as_ref().is_none_or(|machine| *machine == contents.machine)
            && args.tag.iter().all(|tag| contents.tags.contains(tag))
    };
    let all = work.wait(repository.snapshots()).await?;
    let snapshots = all.iter().filter(|snapshot| wanted(snapshot)).map(SnapshotView::from).collect();
    Answer::new(Snapshots { snapshots }).give(work.json, |answer, text| list(&answer.snapshots, text))
}

fn list(snapshots: &[SnapshotView], text: &mut Text) {
    let ids: Vec<_> = snapshots.iter().map(|snapshot| snapshot.id.to_string()).collect();
    let length = short_length(ids.iter().map(String::as_str));
    let rows = snapshots.iter().zip(&ids).map(|(snapshot, id)| {
        let disks: Vec<_> = snapshot.disks.iter().map(|disk| disk.name.as_str()).collect();
        let used = snapshot.disks.iter().map(|disk| disk.used_bytes).sum();
        [
            short(id, length),
            snapshot.machine.clone(),
            at(snapshot.taken_at_unix_ms),
            disks.join(" "),
            ByteCount(used).to_string(),
            ByteCount(snapshot.stats.new_bytes).to_string(),
            ByteCount(snapshot.stats.stored_bytes).to_string(),
            snapshot.tags.join(" ")
                + if snapshot.stored_as_failover { " (not in the first repository)" } else { "" },
        ]
    });
    let head = [
        whole("ID"),
        cut("MACHINE"),
        whole("TAKEN"),
        cut("DISKS"),
        extra(number("USED")),
        number("NEW"),
        number("STORED"),
        cut("TAGS"),
    ];
    text.table(head, rows.collect(), "no snapshots; `loam repository backup` makes one");
}
