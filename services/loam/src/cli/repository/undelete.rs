//! `loam repository undelete`: restores objects that were deleted or overwritten.

use std::sync::Arc;

use backup_repository::{Progress, UndeleteReport};
use chrono::{DateTime, Utc};
use clap::Args;
use serde::Serialize;

use super::access::Access;
use super::answer::Answer;
use super::values::moment;
use super::work::{CommandContext, shown};
use crate::cli::exit::CliError;

/// More names than this are not shown to people.
const NAMES_SHOWN: usize = 20;

/// The options of every other command, so that one set of them serves all; the secret may be left out, and is not read.
#[derive(Debug, Args)]
#[command(mut_group("SecretArgs", |secret| secret.required(false)))]
pub(in crate::cli) struct UndeleteArgs {
    /// Time before the attack, such as 2026-11-26T04:00:00Z, or how long ago, such as 36h (m: minutes, M: months)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: DateTime<Utc>,
    /// Show what would come back, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    access: Access,
}

#[derive(Serialize)]
struct Undeleted {
    dry_run: bool,
    objects: Vec<String>,
}

pub(super) async fn run(args: UndeleteArgs, work: &CommandContext) -> Result<(), CliError> {
    let store = args.access.open_store()?;
    let progress = Arc::new(Progress::new());
    let undeleting = work.wait(store.undelete(args.since, &progress, args.dry_run));
    let UndeleteReport { objects } = shown("undeleting", &progress, Box::pin(undeleting)).await?;
    Answer::new(Undeleted { dry_run: args.dry_run, objects }).give(work.json, |done, text| {
        let would = if done.dry_run { "would be " } else { "" };
        text.line(format_args!("objects brought back: {would}{}", done.objects.len()));
        for name in done.objects.iter().take(NAMES_SHOWN) {
            text.line(format_args!("  {name}"));
        }
        if done.objects.len() > NAMES_SHOWN {
            text.line("  … (--json names all)");
        }
    })
}
