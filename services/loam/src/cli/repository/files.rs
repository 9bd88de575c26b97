//! `loam repository ls` and `extract`: what is on a disk, without mounting it and without being root.
//!
//! A damaged disk is an ordinary error that names it, even where it makes the reader of its file system panic
//! ([`report_reader_panics`](files::report_reader_panics)): for these two commands alone, because nothing else reads file
//! systems in this process, and the thread that is lost by it ends with the command.

use std::path::PathBuf;
use std::sync::Arc;

use backup_export::files::{
    self, Entry, EntryKind, FileSystem, FileSystemLocation, FilesError, Partition, PartitionKind,
};
use backup_repository::{DiskSource, RecordKind, Repository};
use chrono::DateTime;
use clap::Args;
use contract::ByteCount;
use serde::Serialize;

use super::access::Access;
use super::answer::Answer;
use super::errors;
use super::file::NewFile;
use super::snapshot_arg::SnapshotArg;
use super::snapshots::{DiskView, disks};
use super::values::Destination;
use super::work::{CommandContext, bar_of};
use crate::cli::exit::CliError;
use crate::cli::output::{Text, cut, number, printable, time, whole};
use crate::stdio;

#[derive(Debug, Args)]
pub(in crate::cli) struct LsArgs {
    #[command(flatten)]
    snapshot: SnapshotArg,
    /// Disk to look into (default: list the disks)
    #[arg(long, value_name = "NAME")]
    disk: Option<String>,
    /// Number of the partition; needed where several hold files
    #[arg(long, value_name = "N", requires = "disk")]
    partition: Option<u32>,
    /// Directory or file to list (default: list the partitions)
    #[arg(requires = "disk")]
    path: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ExtractArgs {
    #[command(flatten)]
    snapshot: SnapshotArg,
    /// Name of the disk
    #[arg(long, value_name = "NAME")]
    disk: String,
    /// Number of the partition; needed where several hold files
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// File on the disk
    path: PathBuf,
    /// New file to write it to; `-` is standard output
    #[arg(long, value_name = "FILE|-", default_value = "-")]
    output: Destination,
    #[command(flatten)]
    access: Access,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Listing {
    Disks { disks: Vec<DiskView> },
    Partitions { partitions: Vec<PartitionView> },
    Entries { entries: Vec<EntryView> },
}

#[derive(Serialize)]
struct PartitionView {
    number: Option<u32>,
    offset: u64,
    size_bytes: u64,
    holds: String,
    readable: bool,
    name: Option<String>,
}

#[derive(Serialize)]
struct EntryView {
    name: String,
    kind: &'static str,
    link: Option<String>,
    size_bytes: u64,
    mode: Option<u16>,
    owner: Option<(u32, u32)>,
    modified_unix_s: Option<i64>,
}

impl From<Partition> for PartitionView {
    fn from(partition: Partition) -> PartitionView {
        let Partition { number, offset, size_bytes, kind, file_system: holds } = partition;
        let name = match kind {
            PartitionKind::Gpt { name, .. } if !name.is_empty() => Some(name),
            PartitionKind::Gpt { .. } | PartitionKind::Mbr(_) => None,
        };
        let (holds, readable) = (holds.to_string(), holds.is_readable());
        PartitionView { number: Some(number), offset, size_bytes, holds, readable, name }
    }
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> EntryView {
        let (kind, link) = match entry.kind {
            EntryKind::File => ("file", None),
            EntryKind::Folder => ("folder", None),
            EntryKind::Link(to) => ("link", Some(to.to_string_lossy().into_owned())),
            EntryKind::Special => ("special", None),
        };
        EntryView {
            name: entry.name.to_string_lossy().into_owned(),
            kind,
            link,
            size_bytes: entry.size_bytes,
            mode: entry.mode,
            owner: entry.owner,
            modified_unix_s: entry.modified,
        }
    }
}

pub(super) async fn ls(args: LsArgs, work: &CommandContext) -> Result<(), CliError> {
    let listing = match &args.disk {
        None => {
            let repository = args.access.open(work).await?;
            Listing::Disks { disks: disks(&args.snapshot.find(&repository, work).await?) }
        }
        Some(name) => {
            let repository = args.access.open_to_read(work).await?;
            let disk = Disk::open(&args.snapshot, &repository, name, work).await?;
            match (args.partition, args.path) {
                (None, None) => Listing::Partitions { partitions: disk.parts().await? },
                (partition, path) => {
                    let place = disk.place(partition).await?;
                    let path = path.unwrap_or_else(|| "/".into());
                    let entries = disk.wait(files::list(&disk.source, place, &path)).await?;
                    Listing::Entries { entries: entries.into_iter().map(EntryView::from).collect() }
                }
            }
        }
    };
    Answer::new(listing).give(work.json, lines)
}

pub(super) async fn extract(args: ExtractArgs, work: &CommandContext) -> Result<(), CliError> {
    if args.output == Destination::Stdout && work.json {
        return Err(errors::usage("stdout takes the file or the result in JSON: give --output FILE"));
    }
    let repository = args.access.open_to_read(work).await?;
    let disk = Disk::open(&args.snapshot, &repository, &args.disk, work).await?;
    let place = disk.place(args.partition).await?;
    // A file may have holes, but hardly more than its disk has bytes.
    let bytes_max = disk.source.size_bytes();
    let path = args.path;
    match args.output {
        Destination::Stdout => {
            let mut stdout = stdio::data();
            let extracting = files::extract(&disk.source, place, &path, &mut stdout, bytes_max);
            work.unless_cancelled(extracting, |error| {
                errors::or_reader_gone(error).unwrap_or_else(|error| disk.failed(error))
            })
            .await
            .map(drop)
        }
        Destination::Path(to) => {
            let mut file = NewFile::begin(&to)?;
            // Of a folder there is nothing to extract; what a link leads to is not known before.
            let entries = disk.wait(files::list(&disk.source, place, &path)).await?;
            let is_file = |entry: &&Entry| entry.kind == EntryKind::File;
            let bar =
                bar_of("extracting", entries.first().filter(is_file).map_or(0, |entry| entry.size_bytes));
            let mut writer = bar.wrap_async_write(file.writer());
            let extracting = files::extract(&disk.source, place, &path, &mut writer, bytes_max);
            let bytes = disk.wait(extracting).await?;
            bar.finish_and_clear();
            file.finish().await?;
            Answer::new(Extracted { path, to, bytes }).give(work.json, |done, text| {
                text.line(format_args!(
                    "{} is extracted to {}: {}",
                    done.path.display(),
                    done.to.display(),
                    ByteCount(done.bytes)
                ));
            })
        }
    }
}

#[derive(Serialize)]
struct Extracted {
    path: PathBuf,
    to: PathBuf,
    bytes: u64,
}

/// A disk whose files are read.
struct Disk<'a> {
    name: &'a str,
    source: Arc<dyn DiskSource>,
    work: &'a CommandContext,
}

impl<'a> Disk<'a> {
    async fn open(
        snapshot: &SnapshotArg,
        repository: &Repository,
        name: &'a str,
        work: &'a CommandContext,
    ) -> Result<Disk<'a>, CliError> {
        let (_, source) = snapshot.open_disk(repository, name, work).await?;
        files::report_reader_panics();
        Ok(Disk { name, source, work })
    }

    async fn wait<T>(&self, doing: impl Future<Output = Result<T, FilesError>>) -> Result<T, CliError> {
        self.work.unless_cancelled(doing, |error| self.failed(error)).await
    }

    fn failed(&self, error: FilesError) -> CliError {
        errors::while_doing(format_args!("disk {}", printable(self.name)), error)
    }

    /// The partitions, or the one file system that a disk without a table is.
    async fn parts(&self) -> Result<Vec<PartitionView>, CliError> {
        let partitions = self.wait(files::partitions(&self.source)).await?;
        if !partitions.is_empty() {
            return Ok(partitions.into_iter().map(PartitionView::from).collect());
        }
        let holds = self.wait(files::file_system(&self.source, FileSystemLocation::WholeDisk)).await?;
        Ok(vec![PartitionView {
            number: None,
            offset: 0,
            size_bytes: self.source.size_bytes(),
            holds: holds.to_string(),
            readable: holds.is_readable(),
            name: None,
        }])
    }

    /// Where the files are: in the partition that was given, or in the only one that holds files.
    async fn place(&self, partition: Option<u32>) -> Result<FileSystemLocation, CliError> {
        if let Some(number) = partition {
            return Ok(FileSystemLocation::Partition(number));
        }
        let partitions = self.wait(files::partitions(&self.source)).await?;
        if partitions.is_empty() {
            return Ok(FileSystemLocation::WholeDisk);
        }
        let readable = |partition: &&Partition| partition.file_system.is_readable();
        match partitions.iter().filter(readable).collect::<Vec<_>>().as_slice() {
            [only] => Ok(FileSystemLocation::Partition(only.number)),
            _ => {
                let all: Vec<_> =
                    partitions.iter().map(|p| format!("{} ({})", p.number, p.file_system)).collect();
                Err(errors::usage(format!("choose a partition with --partition: {}", all.join(", "))))
            }
        }
    }
}

fn lines(listing: &Listing, text: &mut Text) {
    match listing {
        Listing::Disks { disks } => {
            let rows = disks.iter().map(|disk| {
                let shape = match disk.kind {
                    RecordKind::Disk => "disk",
                    RecordKind::Stream => "stream",
                };
                let (size, used) = (ByteCount(disk.size_bytes), ByteCount(disk.used_bytes));
                [disk.name.clone(), shape.into(), size.to_string(), used.to_string()]
            });
            let head = [cut("DISK"), whole("KIND"), number("SIZE"), number("USED")];
            text.table(head, rows.collect(), "the snapshot has no disks");
        }
        Listing::Partitions { partitions } => {
            let rows = partitions.iter().map(|part| {
                let read = match part.readable {
                    true => "ls, extract",
                    false if part.holds == FileSystem::Unknown.to_string() => "-",
                    false => "mount",
                };
                [
                    part.number.map_or_else(|| "-".into(), |number| number.to_string()),
                    ByteCount(part.size_bytes).to_string(),
                    part.holds.clone(),
                    read.to_owned(),
                    part.name.clone().unwrap_or_default(),
                ]
            });
            let head =
                [whole("PARTITION"), number("SIZE"), whole("CONTENT"), whole("READ WITH"), cut("NAME")];
            text.table(head, rows.collect(), "no partitions");
        }
        Listing::Entries { entries } => {
            let rows = entries.iter().map(|entry| {
                let mode = entry.mode.map_or_else(|| "-".into(), |mode| format!("{mode:04o}"));
                let owner = entry.owner.map_or_else(|| "-".into(), |(user, group)| format!("{user}:{group}"));
                let changed = entry.modified_unix_s.and_then(|s| DateTime::from_timestamp(s, 0));
                let changed = changed.map_or_else(|| "-".into(), |at| time(&at));
                let name = match &entry.link {
                    Some(to) => format!("{} -> {to}", entry.name),
                    None => entry.name.clone(),
                };
                let size = entry.size_bytes.to_string();
                [mode, owner, entry.kind.to_owned(), size, changed, name]
            });
            let head = [
                whole("MODE"),
                whole("OWNER"),
                whole("KIND"),
                number("BYTES"),
                whole("MODIFIED"),
                whole("NAME"),
            ];
            text.table(head, rows.collect(), "an empty directory");
        }
    }
}
