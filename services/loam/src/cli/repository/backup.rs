//! `loam repository backup`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use backup_repository::anomaly::{AnomalyThresholds, Detector, Finding, Severity};
use backup_repository::{
    BackupRequest, BackupStats, DiskAddress, DiskSource, ImageReferencePolicy, SnapshotId, StoreUrl,
};
use clap::Args;
use contract::ByteCount;
use serde::Serialize;

use super::access::{Access, CompressionArgs, SECOND, SecondRepositoryArgs};
use super::answer::Answer;
use super::destinations::{BackupDestinations, BackupEstimate, StoredBackup};
use super::errors;
use super::snapshots::SnapshotView;
use super::values::{NamedValue, State, disk_address};
use super::work::CommandContext;
use crate::cli::exit::CliError;

/// A definition is a page of text; a larger file is a mistake.
const DEFINITION_BYTES_MAX: u64 = 1024 * 1024;

#[derive(Debug, Args)]
pub(in crate::cli) struct BackupArgs {
    /// Name of the machine (default: the host name)
    #[arg(long, value_name = "NAME")]
    machine: Option<String>,
    /// Disk to back up: ADDRESS is a path, raw:PATH, qcow2:PATH, nbd://… or nbd+unix://…; can be repeated
    #[arg(long, value_name = "NAME=ADDRESS", value_parser = disk_address)]
    disk: Vec<NamedValue<DiskAddress>>,
    /// Back up standard input as a stream of this name, such as a database dump
    #[arg(long, value_name = "NAME")]
    stdin: Option<String>,
    /// Snapshot that dirty bitmaps count from, needed only with bitmaps: `auto` (the machine's latest), `none` or an id
    #[arg(long, value_name = "auto|none|ID")]
    parent: Option<String>,
    /// Tag of the snapshot; can be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// File to store as the definition of the machine
    #[arg(long, value_name = "FILE")]
    definition: Option<PathBuf>,
    /// State of the guest's data while it was read, recorded in the snapshot
    #[arg(long, value_enum, default_value = "crash")]
    consistency: State,
    /// Also read files that qcow2 images refer to, such as backing files; for trusted images only
    #[arg(long)]
    follow_references: bool,
    /// Warn when the disks hold less than this
    #[arg(long, value_name = "SIZE", default_value = "0")]
    min_size: ByteCount,
    /// Read everything and show what the first reachable repository would store, and write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    compression: CompressionArgs,
    #[command(flatten)]
    access: Access,
    /// Location of the second repository; backups go to both, and to this alone while the first cannot be reached
    #[arg(long = "to", value_name = "URL", help_heading = SECOND)]
    to_store: Option<StoreUrl>,
    #[command(flatten)]
    second: SecondRepositoryArgs,
}

#[derive(Serialize)]
struct Done {
    snapshot: SnapshotView,
    /// The repositories that have it.
    stored_in: Vec<String>,
    /// Earlier backups that were in the second repository alone, and were copied to the first.
    copied_to_first: Vec<SnapshotId>,
    findings: Vec<FindingView>,
}

#[derive(Serialize)]
struct Estimate {
    machine: String,
    stats: BackupStats,
}

#[derive(Serialize)]
struct FindingView {
    severity: Severity,
    #[serde(flatten)]
    finding: Finding,
}

pub(super) async fn run(args: BackupArgs, work: &CommandContext) -> Result<(), CliError> {
    let expectations = AnomalyThresholds { used_bytes_min: args.min_size.0, ..AnomalyThresholds::default() };
    let judge = Detector::try_from(expectations).map_err(errors::of)?;
    let definition = args.definition.as_deref().map(read_definition).transpose()?.unwrap_or_default();
    if args.parent.is_none() && args.disk.iter().any(|disk| has_bitmap(&disk.value)) {
        let why = "a bitmap says what changed since a backup: name that backup with --parent";
        return Err(errors::usage(why));
    }
    let machine = args.machine.clone().map_or_else(name_of_host, Ok)?;
    let access = args.access.clone().compressing(args.compression);
    let second = args.to_store.clone().map(|store| access.second(store, args.second.clone())).transpose()?;
    let mut destinations = BackupDestinations::open(&access, second, work).await?;
    let copied_to_first = if args.dry_run { Vec::new() } else { destinations.copy_to_first(work).await? };
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
        let BackupEstimate { stats, warnings } =
            destinations.estimate(request, args.parent.as_deref(), work).await?;
        let estimate = Estimate { machine, stats };
        return Answer::new(estimate).dry(true).warn(warnings).give(work.json, |done, text| {
            let BackupStats { read_bytes, new_bytes, stored_bytes, .. } = done.stats;
            let (read, new, stored) = (ByteCount(read_bytes), ByteCount(new_bytes), ByteCount(stored_bytes));
            text.line(format_args!("read {read}, new {new}, would store {stored}"));
        });
    }
    let stored = destinations.back_up(request, args.parent.as_deref(), work).await?;
    let judged = stored.repository.find_anomalies(&stored.snapshot, &judge).await;
    let (findings, unjudged) = match judged {
        Ok(findings) => (findings, None),
        Err(error) => {
            (Vec::new(), Some(format!("not compared with earlier backups: {}", errors::message(&error))))
        }
    };
    show(stored, copied_to_first, findings, unjudged, work)
}

/// The backup is stored: whatever is unusual about it is a warning.
fn show(
    stored: StoredBackup,
    copied_to_first: Vec<SnapshotId>,
    findings: Vec<Finding>,
    unjudged: Option<String>,
    work: &CommandContext,
) -> Result<(), CliError> {
    let StoredBackup { snapshot, stored_in: places, warnings, .. } = stored;
    let refused = snapshot.contents.stats.dirty_bitmaps_rejected;
    let refused =
        (refused > 0).then(|| format!("{refused} dirty bitmaps were wrong; those disks were read whole"));
    let grave = findings.iter().filter(|finding| finding.severity() > Severity::Notice);
    let unusual = grave.map(ToString::to_string).chain(refused).chain(unjudged);
    let warnings: Vec<_> = warnings.into_iter().chain(unusual).collect();
    let view = |finding: Finding| FindingView { severity: finding.severity(), finding };
    let findings = findings.into_iter().map(view).collect();
    let done = Done { snapshot: (&snapshot).into(), stored_in: places, copied_to_first, findings };
    Answer::new(done).warn(warnings).give(work.json, |done, text| {
        let stats = &snapshot.contents.stats;
        text.line(format_args!("snapshot {} of {} is stored", done.snapshot.id, snapshot.contents.machine));
        if done.stored_in.len() > 1 {
            text.line(format_args!("stored in {}", done.stored_in.join(" and ")));
        }
        if !done.copied_to_first.is_empty() {
            text.line(format_args!(
                "copied {} earlier backups from the second repository",
                done.copied_to_first.len()
            ));
        }
        text.line(format_args!(
            "read {}, new {}, stored {}",
            ByteCount(stats.read_bytes),
            ByteCount(stats.new_bytes),
            ByteCount(stats.stored_bytes)
        ));
        for notice in done.findings.iter().filter(|view| view.severity == Severity::Notice) {
            text.line(format_args!("note: {}", notice.finding));
        }
    })
}

fn has_bitmap(address: &DiskAddress) -> bool {
    match address {
        DiskAddress::Image { dirty_bitmap, .. } => dirty_bitmap.is_some(),
        DiskAddress::Nbd(settings) => settings.dirty_bitmap.is_some(),
    }
}

async fn open_disks(
    args: &BackupArgs,
    work: &CommandContext,
) -> Result<Vec<(String, Box<dyn DiskSource>)>, CliError> {
    let references =
        if args.follow_references { ImageReferencePolicy::Follow } else { ImageReferencePolicy::Refuse };
    let mut disks = Vec::with_capacity(args.disk.len());
    for NamedValue { name, value: address } in &args.disk {
        let failed = |error| errors::while_doing(format_args!("opening disk {name}"), error);
        disks.push((name.clone(), work.unless_cancelled(address.open(references), failed).await?));
    }
    Ok(disks)
}

/// The default name of a machine.
fn name_of_host() -> Result<String, CliError> {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).ok_or_else(|| errors::usage("this host has no name: give --machine"))
}

fn read_definition(path: &Path) -> Result<Vec<u8>, CliError> {
    let unreadable = |error: std::io::Error| errors::usage(format!("reading {}: {error}", path.display()));
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(DEFINITION_BYTES_MAX + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > DEFINITION_BYTES_MAX {
        let most = ByteCount(DEFINITION_BYTES_MAX);
        return Err(errors::usage(format!("{} is longer than {most}", path.display())));
    }
    Ok(text)
}

fn unix_ms_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
