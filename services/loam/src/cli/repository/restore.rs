//! `loam repository restore`.
//!
//! ```text
//!   NAME=PATH                  a new image, raw or qcow2, under its name when it is whole
//!   NAME=PATH --into-existing  an image or block device; only what differs is written
//!   NAME=PATH --range A..B     a part of a disk, or a stream: a new file
//!   NAME=-                     any of these to stdout
//! ```

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_repository::restore::{FailedImageAction, ImageError, ReadBack, Resize};
use backup_repository::{
    ImageFormat, ImageReferencePolicy, Progress, RecordKind, Repository, RestoreError, RestoreReport,
    RestoreRequest, RestoreTarget, Snapshot, SnapshotId,
};
use clap::{Args, ValueEnum};
use contract::ByteCount;
use serde::Serialize;

use super::access::Access;
use super::answer::Answer;
use super::errors;
use super::file::NewFile;
use super::snapshot_arg::SnapshotArg;
use super::values::{ByteRange, Destination, NamedValue, disk_destination};
use super::work::{CommandContext, shown};
use crate::cli::exit::CliError;
use crate::cli::output::Text;
use crate::stdio;

#[derive(Debug, Args)]
pub(in crate::cli) struct RestoreArgs {
    #[command(flatten)]
    snapshot: SnapshotArg,
    /// Disk or stream to restore, and the file to write; `-` is standard output; can be repeated
    #[arg(long, value_name = "NAME=PATH", value_parser = disk_destination, required_unless_present = "definition")]
    disk: Vec<NamedValue<Destination>>,
    /// Format of the image (default: raw for a new one, detected for an existing one)
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write only what differs into existing images or block devices
    #[arg(long, conflicts_with = "range")]
    into_existing: bool,
    /// Resize an existing raw file to the disk's size; data behind it is lost
    #[arg(long, requires = "into_existing")]
    resize: bool,
    /// Also use files that an existing image refers to, such as a backing file; for trusted images only
    #[arg(long, requires = "into_existing")]
    follow_references: bool,
    /// Only restore bytes from A up to but not including B, such as 1M..2M
    #[arg(long, value_name = "A..B")]
    range: Option<ByteRange>,
    /// Read everything again when it is written, and compare
    #[arg(long, conflicts_with = "range")]
    read_back: bool,
    /// Keep an unfinished raw image when interrupted: the same command continues it
    #[arg(long)]
    keep_partial: bool,
    /// Write the machine's definition to a new file
    #[arg(long, value_name = "FILE")]
    definition: Option<PathBuf>,
    /// Show what would be written, and write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Raw,
    Qcow2,
}

impl From<Format> for ImageFormat {
    fn from(format: Format) -> ImageFormat {
        match format {
            Format::Raw => ImageFormat::Raw,
            Format::Qcow2 => ImageFormat::Qcow2,
        }
    }
}

#[derive(Serialize)]
struct Done {
    snapshot: SnapshotId,
    machine: String,
    dry_run: bool,
    disks: Vec<DiskDone>,
    definition: Option<PathBuf>,
}

#[derive(Serialize)]
struct DiskDone {
    name: String,
    to: PathBuf,
    size_bytes: u64,
    used_bytes: u64,
    #[serde(flatten)]
    report: Option<Report>,
}

#[derive(Serialize)]
struct Report {
    written_bytes: u64,
    zeroed_bytes: u64,
    kept_bytes: u64,
}

impl From<RestoreReport> for Report {
    fn from(report: RestoreReport) -> Report {
        let RestoreReport { written_bytes, zeroed_bytes, kept_bytes } = report;
        Report { written_bytes, zeroed_bytes, kept_bytes }
    }
}

/// What is to be done with one disk.
enum Task<'a> {
    Image(RestoreRequest),
    InOrder(Range<u64>, &'a Destination),
}

pub(super) async fn run(args: RestoreArgs, work: &CommandContext) -> Result<(), CliError> {
    let to_stdout = args.disk.iter().filter(|disk| disk.value == Destination::Stdout).count();
    if to_stdout > 1 || (to_stdout == 1 && work.json) {
        return Err(errors::usage("stdout takes one disk, or the result in JSON: not both"));
    }
    if args.range.is_some() && args.disk.len() > 1 {
        return Err(errors::usage("--range needs exactly one disk"));
    }
    let repository = args.access.open_to_read(work).await?;
    let snapshot = args.snapshot.find(&repository, work).await?;
    let mut disks = Vec::with_capacity(args.disk.len());
    for disk in &args.disk {
        disks.push(restore(&repository, &snapshot, disk, &args, work).await?);
    }
    if let Some(path) = args.definition.as_deref().filter(|_| !args.dry_run) {
        let definition = repository.definition(&snapshot).map_err(errors::of)?;
        NewFile::begin(path)?.whole(&definition).await?;
    }
    let done = Done {
        snapshot: snapshot.id,
        machine: snapshot.contents.machine.clone(),
        dry_run: args.dry_run,
        disks,
        definition: args.definition,
    };
    Answer::new(done).give(work.json, |done, text| {
        // Where the disk itself went to standard output, nothing else may.
        if to_stdout == 0 {
            lines(done, text);
        }
    })
}

async fn restore(
    repository: &Repository,
    snapshot: &Snapshot,
    disk: &NamedValue<Destination>,
    args: &RestoreArgs,
    work: &CommandContext,
) -> Result<DiskDone, CliError> {
    let NamedValue { name, value: destination } = disk;
    let no_such = || errors::of(RestoreError::NoSuchDisk { disk: name.clone() });
    let record = snapshot.disk(name).ok_or_else(no_such)?;
    let mut done = DiskDone {
        name: name.clone(),
        to: match destination {
            Destination::Path(path) => path.clone(),
            Destination::Stdout => "-".into(),
        },
        size_bytes: record.size_bytes,
        used_bytes: record.used_bytes,
        report: None,
    };
    let task = task(name, record.kind, record.size_bytes, destination, args)?;
    if args.dry_run {
        return Ok(done);
    }
    let progress = Arc::new(Progress::new());
    let title = format!("restore {name}");
    let report = match task {
        Task::Image(request) => {
            let restoring = repository.restore(snapshot, &request, &progress, &work.cancel);
            shown(&title, &progress, Box::pin(restoring)).await.map_err(hinted)?
        }
        Task::InOrder(range, destination) => {
            let written_bytes = range.end.saturating_sub(range.start);
            let in_order = async {
                match destination {
                    Destination::Stdout => {
                        let mut stdout = stdio::data();
                        let to = &mut stdout;
                        let written = repository
                            .restore_stream(snapshot, name, range, to, &progress, &work.cancel)
                            .await;
                        written.map_err(|error| errors::or_reader_gone(error).unwrap_or_else(errors::of))
                    }
                    Destination::Path(path) => {
                        let mut file = NewFile::begin(path)?;
                        let to = file.writer();
                        repository
                            .restore_stream(snapshot, name, range, to, &progress, &work.cancel)
                            .await
                            .map_err(errors::of)?;
                        file.finish().await
                    }
                }
            };
            shown(&title, &progress, Box::pin(in_order)).await?;
            RestoreReport { written_bytes, ..RestoreReport::default() }
        }
    };
    done.report = Some(report.into());
    Ok(done)
}

/// What the options make of one disk.
fn task<'a>(
    name: &str,
    shape: RecordKind,
    size_bytes: u64,
    destination: &'a Destination,
    args: &RestoreArgs,
) -> Result<Task<'a>, CliError> {
    let range = args.range.as_ref().map_or(0..size_bytes, |range| range.on(size_bytes));
    let path = match destination {
        Destination::Path(path) if args.range.is_none() && shape == RecordKind::Disk => path,
        _ if args.into_existing || args.format == Some(Format::Qcow2) || args.read_back => {
            let why = "goes from its first byte to its last into a new file or to stdout: \
                       without --into-existing, --read-back and --format qcow2";
            return Err(errors::usage(format!("{name} {why}")));
        }
        _ => return Ok(Task::InOrder(range, destination)),
    };
    let path = path.clone();
    let target = match (args.into_existing, args.format) {
        (true, format) => RestoreTarget::Existing {
            path,
            format: format.map(ImageFormat::from),
            resize: if args.resize { Resize::ToFit } else { Resize::Never },
            references: if args.follow_references {
                ImageReferencePolicy::Follow
            } else {
                ImageReferencePolicy::Refuse
            },
        },
        (false, Some(Format::Qcow2)) => RestoreTarget::NewQcow2 { path },
        (false, _) => RestoreTarget::NewRaw { path },
    };
    let unfinished = if args.keep_partial { FailedImageAction::Keep } else { FailedImageAction::Remove };
    let read_back = if args.read_back { ReadBack::Yes } else { ReadBack::No };
    Ok(Task::Image(RestoreRequest { on_failure: unfinished, read_back, ..RestoreRequest::new(name, target) }))
}

fn hinted(error: RestoreError) -> CliError {
    let exists = matches!(&error, RestoreError::Image(ImageError::Exists { .. }));
    let error = errors::of(error);
    if exists { error.append(" (--into-existing writes into it)") } else { error }
}

fn lines(done: &Done, text: &mut Text) {
    for disk in &done.disks {
        let (size, used) = (ByteCount(disk.size_bytes), ByteCount(disk.used_bytes));
        let to = disk.to.display();
        match &disk.report {
            None => text.line(format_args!(
                "{} would be restored to {to}: {size}, of which {used} hold data",
                disk.name
            )),
            Some(Report { written_bytes, zeroed_bytes, kept_bytes }) => text.line(format_args!(
                "{} is restored to {to}: {size}, written {}, zeroed {}, unchanged {}",
                disk.name,
                ByteCount(*written_bytes),
                ByteCount(*zeroed_bytes),
                ByteCount(*kept_bytes)
            )),
        }
    }
    if let Some(path) = &done.definition {
        let would_be = if done.dry_run { "would be written to" } else { "is written to" };
        text.line(format_args!("the definition {would_be} {}", Path::display(path)));
    }
}
