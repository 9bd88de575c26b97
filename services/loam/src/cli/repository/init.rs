//! `loam repository init` and `info`.

use backup_repository::{Capabilities, Info, Repository};
use clap::Args;
use contract::ByteCount;
use serde::Serialize;

use super::access::Access;
use super::answer::Answer;
use super::snapshots::at;
use super::work::Work;
use crate::cli::exit::Trouble;

#[derive(Debug, Args)]
pub(in crate::cli) struct InitArgs {
    #[command(flatten)]
    access: Access,
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
    store: Capabilities,
    snapshots: u64,
    packs: u64,
    stored_bytes: u64,
    blobs: u64,
    index_memory_bytes: u64,
    keys: u64,
    epoch: u32,
    can_read: bool,
}

impl From<Info> for InfoView {
    fn from(info: Info) -> InfoView {
        InfoView {
            repository: info.id.to_string(),
            created_unix_ms: info.created_unix_ms,
            store: info.store,
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
    let repository = args.access.init(work).await?;
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
        println!("stored       {} in {} packs", ByteCount(info.stored_bytes), info.packs);
        println!("index        {} blobs, {} of memory", info.blobs, ByteCount(info.index_memory_bytes));
        let may = if info.can_read { "may read" } else { "is write-only" };
        println!("keys         {}, in epoch {}; the one in use {may}", info.keys, info.epoch);
    })
}

async fn look(repository: &Repository, work: &Work) -> Result<InfoView, Trouble> {
    work.wait(repository.info()).await.map(InfoView::from)
}
