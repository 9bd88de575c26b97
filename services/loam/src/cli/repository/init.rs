//! `loam repository init` and `info`.

use backup_repository::{Capabilities, Chunker, Info, LockMode, ObjectLock, Repository};
use clap::{Args, ValueEnum};
use contract::ByteCount;
use serde::Serialize;

use super::access::{Access, DryRun};
use super::answer::Answer;
use super::errors;
use super::snapshots::at;
use super::work::CommandContext;
use crate::cli::exit::CliError;

#[derive(Debug, Args)]
pub(in crate::cli) struct InitArgs {
    /// Lock stored objects against deletion with S3 Object Lock; the bucket must be made for it
    #[arg(long, value_name = "MODE", value_enum, requires = "lock_days")]
    object_lock: Option<Lock>,
    /// Days, 1 to 3653, for which data that snapshots need is locked; `collect` extends locks
    #[arg(long, value_name = "DAYS", requires = "object_lock")]
    lock_days: Option<u32>,
    /// Chunker that splits disks into chunks; cannot be changed later
    #[arg(long, value_name = "NAME", value_enum, default_value_t = ChunkerName::Fastcdc)]
    chunker: ChunkerName,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    access: Access,
}

/// Who may end a lock before its time.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Lock {
    /// Users with a special permission can end a lock
    Governance,
    /// Nobody can end a lock
    Compliance,
}

impl From<Lock> for LockMode {
    fn from(lock: Lock) -> LockMode {
        match lock {
            Lock::Governance => LockMode::Governance,
            Lock::Compliance => LockMode::Compliance,
        }
    }
}

/// The chunkers by their names on the command line.
#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum ChunkerName {
    /// Content-defined: finds data again that moved by any number of bytes
    Fastcdc,
    /// Content-defined on a grid of 4 KiB, where file systems place their data: a third less CPU time
    Aligned,
}

impl From<ChunkerName> for Chunker {
    fn from(name: ChunkerName) -> Chunker {
        match name {
            ChunkerName::Fastcdc => Chunker::FastCdc,
            ChunkerName::Aligned => Chunker::AlignedCdc,
        }
    }
}

impl From<Chunker> for ChunkerName {
    fn from(chunker: Chunker) -> ChunkerName {
        match chunker {
            Chunker::FastCdc => ChunkerName::Fastcdc,
            Chunker::AlignedCdc => ChunkerName::Aligned,
        }
    }
}

#[derive(Debug, Args)]
pub(in crate::cli) struct InfoArgs {
    #[command(flatten)]
    access: Access,
}

#[derive(Serialize)]
struct InfoView {
    repository: String,
    created_unix_ms: u64,
    store: StoreView,
    chunker: ChunkerName,
    #[serde(skip_serializing_if = "Option::is_none")]
    object_lock: Option<ObjectLock>,
    snapshots: u64,
    packs: u64,
    stored_bytes: u64,
    blobs: u64,
    index_memory_bytes: u64,
    keys: u64,
    epoch: u32,
    can_read: bool,
}

/// Where a repository would be made.
#[derive(Serialize)]
struct PlannedInit {
    store: String,
}

#[derive(Serialize)]
struct StoreView {
    create_if_absent: bool,
    lists_what_was_written: bool,
    object_lock: bool,
    checksums: bool,
    deletes_many: bool,
}

impl From<Capabilities> for StoreView {
    fn from(can: Capabilities) -> StoreView {
        let Capabilities { create_if_absent, lists_what_was_written, object_lock, checksums, deletes_many } =
            can;
        StoreView { create_if_absent, lists_what_was_written, object_lock, checksums, deletes_many }
    }
}

impl From<Info> for InfoView {
    fn from(info: Info) -> InfoView {
        InfoView {
            repository: info.id.to_string(),
            created_unix_ms: info.created_unix_ms,
            store: info.store.into(),
            chunker: info.chunker.into(),
            object_lock: info.object_lock,
            snapshots: info.snapshots,
            packs: info.packs,
            stored_bytes: info.stored_bytes,
            blobs: info.blobs,
            index_memory_bytes: info.index_memory_bytes,
            keys: info.keys,
            epoch: info.epoch,
            can_read: info.can_read,
        }
    }
}

pub(super) async fn init(args: InitArgs, work: &CommandContext) -> Result<(), CliError> {
    let lock = args.object_lock.zip(args.lock_days).map(|(mode, days)| ObjectLock::new(mode.into(), days));
    let lock = lock.transpose().map_err(|error| errors::usage(error.to_string()))?;
    if args.dry.dry_run {
        args.access.could_init(work).await?;
        let planned = PlannedInit { store: args.access.place() };
        return Answer::new(planned).dry(true).give(work.json, |place, text| {
            text.line(format_args!("would initialize a repository in {}", place.store))
        });
    }
    let repository = args.access.init(lock, args.chunker.into(), work).await?;
    let info = info_of(&repository, work).await?;
    Answer::new(info).give(work.json, |info, text| {
        text.line(format_args!("repository {} is initialized", info.repository));
        text.line("keep its secret in a second place: without it nobody can read the backups");
    })
}

pub(super) async fn info(args: InfoArgs, work: &CommandContext) -> Result<(), CliError> {
    let repository = args.access.open(work).await?;
    Answer::new(info_of(&repository, work).await?).give(work.json, |info, text| {
        let chunker = match info.chunker {
            ChunkerName::Fastcdc => "fastcdc, at any byte",
            ChunkerName::Aligned => "aligned, on a grid of 4 KiB",
        };
        let (stored, memory) = (ByteCount(info.stored_bytes), ByteCount(info.index_memory_bytes));
        let may = if info.can_read { "may read" } else { "is write-only" };
        text.field("repository", Some(&info.repository));
        text.field("created", Some(at(info.created_unix_ms)));
        text.field("snapshots", Some(info.snapshots));
        text.field("protection", Some(protection(info)));
        text.field("chunker", Some(chunker));
        text.field("stored", Some(format_args!("{stored} in {} packs", info.packs)));
        text.field("index", Some(format_args!("{} blobs, {memory} of memory", info.blobs)));
        text.field(
            "keys",
            Some(format_args!("{}, in epoch {}; the one in use {may}", info.keys, info.epoch)),
        );
    })
}

async fn info_of(repository: &Repository, work: &CommandContext) -> Result<InfoView, CliError> {
    work.wait(repository.info()).await.map(InfoView::from)
}

/// What the store does to protect its objects.
fn protection(info: &InfoView) -> String {
    let checksums =
        if info.store.checksums { "checksums are verified" } else { "checksums are not verified" };
    let lock = match &info.object_lock {
        Some(lock) if lock.mode() == LockMode::Compliance => {
            format!("locked for {} days against everybody", lock.days())
        }
        Some(lock) => format!("locked for {} days except for users with a special permission", lock.days()),
        None if info.store.object_lock => "not locked, although the bucket supports it".into(),
        None => "not locked".into(),
    };
    format!("{checksums}, {lock}")
}
