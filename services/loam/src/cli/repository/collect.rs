//! `loam repository collect`: deletes data that no snapshot needs.

use std::sync::Arc;
use std::time::Duration;

use backup_repository::{CollectReport, CollectSettings, Progress};
use clap::Args;
use contract::ByteCount;
use serde::Serialize;

use super::access::Access;
use super::answer::Answer;
use super::errors;
use super::values::duration;
use super::work::{CommandContext, shown};
use crate::cli::exit::CliError;
use crate::cli::output::Text;

#[derive(Debug, Args)]
pub(in crate::cli) struct CollectArgs {
    /// Show what would be done, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Maximum size of packs to rewrite; 0 rewrites none (default: 4G)
    #[arg(long, value_name = "SIZE")]
    rewrite_bytes_max: Option<ByteCount>,
    /// Rewrite packs of which less than PERCENT is needed (default: 70)
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    rewrite_below: Option<u8>,
    /// Also re-encrypt data stored before the last `keys rotate`, so that removed keys open nothing
    #[arg(long)]
    reencrypt_old_epochs: bool,
    /// Skip packs younger than TIME, such as 36h (m: minutes, M: months; default: 24h)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pack_age_min: Option<Duration>,
    #[command(flatten)]
    access: Access,
}

#[derive(Serialize)]
struct Collected {
    dry_run: bool,
    packs: u64,
    packs_condemned: u64,
    packs_rewritten: u64,
    bytes_rewritten: u64,
    packs_deleted: u64,
    bytes_deleted: u64,
    packs_waiting: u64,
    locks_extended: u64,
}

pub(super) async fn run(args: CollectArgs, work: &CommandContext) -> Result<(), CliError> {
    let usual = CollectSettings::default();
    let settings = CollectSettings {
        pack_age_min: args.pack_age_min.unwrap_or(usual.pack_age_min),
        rewrite_below_percent: args.rewrite_below.unwrap_or(usual.rewrite_below_percent),
        rewrite_bytes_max: args.rewrite_bytes_max.map_or(usual.rewrite_bytes_max, |bytes| bytes.0),
        reencrypt_old_epochs: args.reencrypt_old_epochs,
        ..usual
    };
    let repository = args.access.open(work).await?;
    let progress = Arc::new(Progress::new());
    let report = if args.dry_run {
        let planning = work.wait(repository.plan_collection(settings, &progress));
        shown("looking for unneeded data", &progress, Box::pin(planning)).await?
    } else {
        let collecting = repository.collect(settings, &progress, &work.cancel);
        shown("collecting", &progress, Box::pin(collecting)).await.map_err(errors::of)?
    };
    Answer::new(Collected::new(report, args.dry_run)).give(work.json, lines)
}

impl Collected {
    fn new(report: CollectReport, dry_run: bool) -> Collected {
        let CollectReport {
            packs,
            packs_condemned,
            packs_rewritten,
            bytes_rewritten,
            packs_deleted,
            bytes_deleted,
            packs_waiting,
            locks_extended,
        } = report;
        Collected {
            dry_run,
            packs,
            packs_condemned,
            packs_rewritten,
            bytes_rewritten,
            packs_deleted,
            bytes_deleted,
            packs_waiting,
            locks_extended,
        }
    }
}

fn lines(done: &Collected, text: &mut Text) {
    let would = if done.dry_run { " (dry run)" } else { "" };
    let (rewritten, deleted) = (ByteCount(done.bytes_rewritten), ByteCount(done.bytes_deleted));
    text.field("packs", Some(done.packs));
    text.field(
        "marked",
        Some(format_args!("{} packs, for a later run to delete{would}", done.packs_condemned)),
    );
    text.field("rewritten", Some(format_args!("{} packs, {rewritten}{would}", done.packs_rewritten)));
    text.field("deleted", Some(format_args!("{} packs, {deleted}{would}", done.packs_deleted)));
    let waiting = |packs| format!("{packs} for running backups, until a later run");
    text.field("waiting", (done.packs_waiting > 0).then(|| waiting(done.packs_waiting)));
    let extended = |objects| format!("{objects} objects for longer");
    text.field("locked", (done.locks_extended > 0).then(|| extended(done.locks_extended)));
}
