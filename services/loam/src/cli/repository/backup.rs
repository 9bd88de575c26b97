//! `loam repository backup`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use backup_repository::anomaly::{Detector, Expectations, Finding, Severity};
use backup_repository::{BackupRequest, CopyStats, DiskAddress, DiskSource, References, SnapshotId};
use clap::Args;
use contract::ByteCount;
use serde::Serialize;

use super::access::{Access, CompressionArgs, SecondArgs};
use super::answer::Answer;
use super::destinations::{Destinations, Estimated, Stored};
use super::snapshots::SnapshotView;
use super::trouble;
use super::values::{Named, State, disk_address};
use super::work::Work;
use crate::cli::exit::Trouble;

/// A definition is a page of text; a larger file is a mistake.
const DEFINITION_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Debug, Args)]
pub(in crate::cli) struct BackupArgs {
    /// The machine's name; this host's unless given
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
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
    /// Read everything and say what would be stored, in the first place that can be reached; write nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    compression: CompressionArgs,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    second: SecondArgs,
}

#[derive(Serialize)]
struct Done {
    snapshot: SnapshotView,
    /// Where it is.
    stored_in: Vec<String>,
    /// Earlier backups that were in the second repository alone.
    brought_home: Vec<SnapshotId>,
    findings: Vec<FindingView>,
}

#[derive(Serialize)]
struct Estimate {
    machine: String,
    stats: CopyStats,
}

#[derive(Serialize)]
struct FindingView {
    severity: Severity,
    #[serde(flatten)]
    finding: Finding,
}

pub(super) async fn run(args: BackupArgs, work: &Work) -> Result<(), Trouble> {
    let expectations = Expectations { used_bytes_min: args.min_size.0, ..Expectations::default() };
    let detector = Detector::try_from(expectations).map_err(trouble::of)?;
    let definition = args.definition.as_deref().map(read_definition).transpose()?.unwrap_or_default();
    if args.parent.is_none() && args.disk.iter().any(|disk| has_bitmap(&disk.value)) {
        let why = "a bitmap says what changed since some backup: name that one with --parent";
        return Err(trouble::usage(why));
    }
    let machine = args.machine.clone().map_or_else(name_of_host, Ok)?;
    let access = args.access.clone().compressing(args.compression);
    let second = access.second(args.second.clone())?;
    let mut destinations = Destinations::open(&access, second, work).await?;
    let brought_home = if args.dry_run { Vec::new() } else { destinations.bring_home(work).await? };
    let request = BackupRequest {
        machine: machine.clone(),
        taken_at_unix_ms: unix_ms_now(),
        tags: args.tag.clone(),
        disks: open_disks(&args, work).await?,
        streams: args.stdin.iter().map(|name| (name.clone(), Box::new(tokio::io::stdin()) as _)).collect(),
        definition,
        parent: None,
        consistency: args.consistency.0,
    };
    if args.dry_run {
        let Estimated { stats, warnings } =
            destinations.estimate(request, args.parent.as_deref(), work).await?;
        let estimate = Estimate { machine, stats };
        return Answer::new(estimate).dry(true).warn(warnings).give(work.json, |done| {
            let CopyStats { read_bytes, new_bytes, stored_bytes, .. } = done.stats;
            let (read, new, stored) = (ByteCount(read_bytes), ByteCount(new_bytes), ByteCount(stored_bytes));
            println!("read {read}, new {new}, would store {stored}");
        });
    }
    let stored = destinations.back_up(request, args.parent.as_deref(), work).await?;
    let judged = stored.repository.find_anomalies(&stored.snapshot, &detector).await;
    let (findings, unjudged) = match judged {
        Ok(findings) => (findings, None),
        Err(error) => {
            (Vec::new(), Some(format!("not compared with earlier backups: {}", trouble::sentence(&error))))
        }
    };
    tell(stored, brought_home, findings, unjudged, work)
}

/// The backup exists now: whatever is unusual about it is a warning.
fn tell(
    stored: Stored,
    brought_home: Vec<SnapshotId>,
    findings: Vec<Finding>,
    unjudged: Option<String>,
    work: &Work,
) -> Result<(), Trouble> {
    let Stored { snapshot, places, warnings, .. } = stored;
    let refused = snapshot.contents.stats.maps_refused;
    let refused = (refused > 0)
        .then(|| format!("{refused} maps of changes were found to be wrong; those disks were read whole"));
    let grave = findings.iter().filter(|finding| finding.severity() > Severity::Notice);
    let unusual = grave.map(ToString::to_string).chain(refused).chain(unjudged);
    let warnings: Vec<_> = warnings.into_iter().chain(unusual).collect();
    let view = |finding: Finding| FindingView { severity: finding.severity(), finding };
    let findings = findings.into_iter().map(view).collect();
    let done = Done { snapshot: (&snapshot).into(), stored_in: places, brought_home, findings };
    Answer::new(done).warn(warnings).give(work.json, |done| {
        let stats = &snapshot.contents.stats;
        println!("sealed {} of {}", done.snapshot.id, snapshot.contents.machine);
        if done.stored_in.len() > 1 {
            println!("stored in {}", done.stored_in.join(" and "));
        }
        if !done.brought_home.is_empty() {
            println!("brought home {} earlier backups", done.brought_home.len());
        }
        println!(
            "read {}, new {}, stored {}",
            ByteCount(stats.read_bytes),
            ByteCount(stats.new_bytes),
            ByteCount(stats.stored_bytes)
        );
        for notice in done.findings.iter().filter(|view| view.severity == Severity::Notice) {
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

async fn open_disks(args: &BackupArgs, work: &Work) -> Result<Vec<(String, Box<dyn DiskSource>)>, Trouble> {
    let references = if args.follow_references { References::Follow } else { References::Refuse };
    let mut disks = Vec::with_capacity(args.disk.len());
    for Named { name, value: address } in &args.disk {
        let failed = |error| trouble::while_doing(format_args!("opening disk {name}"), error);
        disks.push((name.clone(), work.unless_told(address.open(references), failed).await?));
    }
    Ok(disks)
}

/// What a machine is called that says no other name.
fn name_of_host() -> Result<String, Trouble> {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty())
        .ok_or_else(|| trouble::usage("this host has no name: give --machine"))
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
