//! `loam repository init` and `info`.

use backup_repository::{Capabilities, Chunker, Info, LockMode, ObjectLock, Repository};
use clap::{Args, ValueEnum};
use contract::ByteCount;
use serde::Serialize;

use super::access::{Access, DryRun};
use super::answer::Answer;
use super::snapshots::at;
use super::trouble;
use super::work::Work;
use crate::cli::exit::Trouble;

#[derive(Debug, Args)]
pub(in crate::cli) struct InitArgs {
    /// Lock what is stored, so that nobody can delete it for some days: for a bucket that was made with Object Lock
    #[arg(long, value_name = "MODE", value_enum, requires = "lock_days")]
    object_lock: Option<Lock>,
    /// For how many days, 1 to 3653, what snapshots need is locked at any time; `collect` makes locks last
    #[arg(long, value_name = "DAYS", requires = "object_lock")]
    lock_days: Option<u32>,
    /// How disks are cut into chunks; it cannot be changed later
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Cuts::Fastcdc)]
    chunker: Cuts,
    #[command(flatten)]
    dry: DryRun,
    #[command(flatten)]
    access: Access,
}

/// Who may end a lock before its time.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Lock {
    /// Those with a special permission
    Governance,
    /// Nobody at all
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

/// The chunkers by their names here.
#[derive(Clone, Copy, Debug, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
enum Cuts {
    /// Anywhere: finds again what moved by any number of bytes
    Fastcdc,
    /// On a grid of 4 KiB, where guests' file systems place their data: a third less CPU time
    Aligned,
}

impl From<Cuts> for Chunker {
    fn from(cuts: Cuts) -> Chunker {
        match cuts {
            Cuts::Fastcdc => Chunker::FastCdc,
            Cuts::Aligned => Chunker::Aligned,
        }
    }
}

impl From<Chunker> for Cuts {
    fn from(chunker: Chunker) -> Cuts {
        match chunker {
            Chunker::FastCdc => Cuts::Fastcdc,
            Chunker::Aligned => Cuts::Aligned,
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
    chunker: Cuts,
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
struct Place {
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

pub(super) async fn init(args: InitArgs, work: &Work) -> Result<(), Trouble> {
    let lock = args.object_lock.zip(args.lock_days).map(|(mode, days)| ObjectLock::new(mode.into(), days));
    let lock = lock.transpose().map_err(|error| trouble::usage(error.to_string()))?;
    if args.dry.dry_run {
        args.access.could_init(work).await?;
        let place = Place { store: args.access.place() };
        return Answer::new(place)
            .dry(true)
            .give(work.json, |place| println!("would make a repository in {}", place.store));
    }
    let repository = args.access.init(lock, args.chunker.into(), work).await?;
    let info = look(&repository, work).await?;
    Answer::new(info).give(work.json, |info| {
        println!("made repository {}", info.repository);
        println!("keep what opens it in a second place: without it nothing can be read back by anybody");
    })
}

pub(super) async fn info(args: InfoArgs, work: &Work) -> Result<(), Trouble> {
    let repository = args.access.open(work).await?;
    Answer::new(look(&repository, work).await?).give(work.json, |info| {
        println!("repository   {}", info.repository);
        println!("made         {}", at(info.created_unix_ms));
        println!("snapshots    {}", info.snapshots);
        println!("store        {}", able(info));
        let cuts = match info.chunker {
            Cuts::Fastcdc => "anywhere (FastCDC)",
            Cuts::Aligned => "on a grid of 4 KiB (aligned)",
        };
        println!("disks        cut {cuts}");
        println!("stored       {} in {} packs", ByteCount(info.stored_bytes), info.packs);
        println!("index        {} blobs, {} of memory", info.blobs, ByteCount(info.index_memory_bytes));
        let may = if info.can_read { "may read" } else { "is write-only" };
        println!("keys         {}, in epoch {}; the one in use {may}", info.keys, info.epoch);
    })
}

async fn look(repository: &Repository, work: &Work) -> Result<InfoView, Trouble> {
    work.wait(repository.info()).await.map(InfoView::from)
}

/// What protects the objects where they lie.
fn able(info: &InfoView) -> String {
    let checksums =
        if info.store.checksums { "checksums are verified" } else { "checksums are not verified" };
    let lock = match &info.object_lock {
        Some(lock) if lock.mode() == LockMode::Compliance => {
            format!("locked for {} days against everybody", lock.days())
        }
        Some(lock) => format!("locked for {} days but for those with a special permission", lock.days()),
        None if info.store.object_lock => "not locked, although the bucket could".into(),
        None => "not locked".into(),
    };
    format!("{checksums}, {lock}")
}
