//! `loam repository backup`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use backup_repository::anomaly::{Expectations, Finding, Gravity, Judge};
use backup_repository::{
    BackupRequest, DiskAddress, DiskSource, Progress, References, Repository, Selector, Snapshot,
    SnapshotError, SnapshotId,
};
use clap::Args;
use contract::ByteCount;
use serde::Serialize;

use super::access::Access;
use super::answer::Answer;
use super::snapshots::SnapshotView;
use super::values::{Named, State, disk_address};
use super::work::{Work, shown};
use super::{trouble, which};
use crate::cli::exit::Trouble;

/// A definition is a page of text; a larger file is a mistake.
const DEFINITION_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Debug, Args)]
pub(in crate::cli) struct BackupArgs {
    /// The machine's name
    #[arg(long, value_name = "NAME")]
    machine: String,
    /// A disk, as NAME=ADDRESS: a path, raw:PATH, qcow2:PATH, nbd://… or nbd+unix://…; may be given again
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = disk_address)]
    disk: Vec<Named<DiskAddress>>,
    /// Back up stdin as a stream of this name, such as a dump of a database
    #[arg(long, value_name = "NAME")]
    stdin: Option<String>,
    /// The snapshot since which the disks' maps of changes count: `auto` (the machine's latest), `none` or an id. Needed
    /// where an address names a bitmap
    #[arg(long, value_name = "auto|none|ID")]
    parent: Option<String>,
    /// A word to keep with the snapshot; may be given again
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// A file to keep as the machine's definition
    #[arg(long, value_name = "FILE")]
    definition: Option<PathBuf>,
    /// In what state the guest's data is
    #[arg(long, value_enum, default_value = "crash")]
    consistency: State,
    /// Follow what images refer to, such as backing files. Only for images that nobody else could have prepared
    #[arg(long)]
    follow_references: bool,
    /// Warn when the disks hold less than this
    #[arg(long, value_name = "SIZE", default_value = "0")]
    min_size: ByteCount,
    #[command(flatten)]
    access: Access,
}

#[derive(Serialize)]
struct Done {
    snapshot: SnapshotView,
    findings: Vec<FindingView>,
}

#[derive(Serialize)]
struct FindingView {
    gravity: Gravity,
    #[serde(flatten)]
    finding: Finding,
}

pub(super) async fn run(args: BackupArgs, work: &Work) -> Result<(), Trouble> {
    let expectations = Expectations { used_bytes_min: args.min_size.0, ..Expectations::default() };
    let judge = Judge::try_from(expectations).map_err(trouble::of)?;
    let definition = args.definition.as_deref().map(read_definition).transpose()?.unwrap_or_default();
    if args.parent.is_none() && args.disk.iter().any(|disk| has_bitmap(&disk.value)) {
        let why = "a bitmap says what changed since some backup: name that one with --parent";
        return Err(trouble::usage(why));
    }
    let repository = args.access.open(work).await?;
    let parent = parent(&repository, &args, work).await?;
    let disks = open_disks(&args, work).await?;
    let request = BackupRequest {
        machine: args.machine.clone(),
        taken_at_unix_ms: unix_ms_now(),
        tags: args.tag.clone(),
        disks,
        streams: args.stdin.iter().map(|name| (name.clone(), Box::new(tokio::io::stdin()) as _)).collect(),
        definition,
        parent,
        consistency: args.consistency.0,
    };
    let progress = Arc::new(Progress::new());
    let copying = repository.copy(request, &progress, &work.cancel);
    let draft = shown(&format!("backup {}", args.machine), &progress, Box::pin(copying)).await;
    let draft = draft.map_err(trouble::of)?;
    // From here on it is one write, and not worth being interrupted.
    let snapshot = repository.seal(&draft, SnapshotId::generate()).await.map_err(trouble::of)?;
    let judged = repository.judge(&snapshot, &judge).await;
    let (findings, unjudged) = match judged {
        Ok(findings) => (findings, None),
        Err(error) => {
            (Vec::new(), Some(format!("not compared with earlier backups: {}", trouble::sentence(&error))))
        }
    };
    tell(&snapshot, findings, unjudged, work)
}

/// The backup exists now: whatever is unusual about it is a warning.
fn tell(
    snapshot: &Snapshot,
    findings: Vec<Finding>,
    unjudged: Option<String>,
    work: &Work,
) -> Result<(), Trouble> {
    let refused = snapshot.contents.stats.maps_refused;
    let refused = (refused > 0)
        .then(|| format!("{refused} maps of changes were found to be wrong; those disks were read whole"));
    let grave = findings.iter().filter(|finding| finding.gravity() > Gravity::Notice);
    let warnings: Vec<_> = grave.map(ToString::to_string).chain(refused).chain(unjudged).collect();
    let view = |finding: Finding| FindingView { gravity: finding.gravity(), finding };
    let findings = findings.into_iter().map(view).collect();
    let done = Done { snapshot: snapshot.into(), findings };
    Answer::new(done).warn(warnings).give(work.json, |done| {
        let stats = &snapshot.contents.stats;
        println!("sealed {} of {}", done.snapshot.id, snapshot.contents.machine);
        println!(
            "read {}, new {}, stored {}",
            ByteCount(stats.read_bytes),
            ByteCount(stats.new_bytes),
            ByteCount(stats.stored_bytes)
        );
        for notice in done.findings.iter().filter(|view| view.gravity == Gravity::Notice) {
            println!("note: {}", notice.finding);
        }
    })
}

fn has_bitmap(address: &DiskAddress) -> bool {
    match address {
        DiskAddress::Image { dirty_bitmap, .. } => dirty_bitmap.is_some(),
        DiskAddress::Nbd(settings) => settings.dirty_bitmap.is_some(),
    }
}

async fn parent(
    repository: &Repository,
    args: &BackupArgs,
    work: &Work,
) -> Result<Option<SnapshotId>, Trouble> {
    let machine = args.machine.clone();
    match args.parent.as_deref() {
        Some("none") => Ok(None),
        None | Some("auto") => match repository.find(&Selector::Latest { machine }).await {
            Ok(snapshot) => Ok(Some(snapshot.id)),
            Err(SnapshotError::Unknown { .. }) => Ok(None),
            Err(error) => Err(trouble::of(error)),
        },
        Some(id) => Ok(Some(which::find(repository, id, Some(&machine), work).await?.id)),
    }
}

async fn open_disks(args: &BackupArgs, work: &Work) -> Result<Vec<(String, Box<dyn DiskSource>)>, Trouble> {
    let references = if args.follow_references { References::Follow } else { References::Refuse };
    let mut disks = Vec::with_capacity(args.disk.len());
    for Named { name, value: address } in &args.disk {
        let failed = |error| trouble::while_doing(format_args!("opening disk {name}"), error);
        disks.push((name.clone(), work.unless_told(address.open(references), failed).await?));
    }
    Ok(disks)
}

fn read_definition(path: &Path) -> Result<Vec<u8>, Trouble> {
    let unreadable = |error: std::io::Error| trouble::usage(format!("reading {}: {error}", path.display()));
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(DEFINITION_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > DEFINITION_BYTES_MAX {
        let most = ByteCount(DEFINITION_BYTES_MAX);
        return Err(trouble::usage(format!("{} is longer than {most}", path.display())));
    }
    Ok(text)
}

fn unix_ms_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
