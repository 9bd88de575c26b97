//! `loam repository forget`: by name, or by rules.

use std::num::NonZero;

use backup_repository::retention::{Count, Plan, Policy, Rules, Span};
use backup_repository::{ForgetPlan, Repository, SnapshotId};
use clap::Args;
use serde::Serialize;

use super::access::Access;
use super::answer::Answer;
use super::work::CommandContext;
use super::{errors, snapshot_arg};
use crate::cli::exit::CliError;

#[derive(Debug, Args)]
pub(in crate::cli) struct ForgetArgs {
    /// Snapshots to remove: `latest`, ids or their first characters; without any, at least one --keep rule
    #[arg(value_name = "SNAPSHOT", conflicts_with = "RuleArgs")]
    snapshots: Vec<String>,
    /// Show what would be removed and why, and remove nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    rules: RuleArgs,
    #[command(flatten)]
    access: Access,
}

/// A snapshot is kept when it fits one of these.
#[derive(Debug, Args)]
#[command(next_help_heading = "Rules: a snapshot that fits one of them is kept")]
struct RuleArgs {
    /// Keep the last N snapshots of each machine, or `all`
    #[arg(long, value_name = "N")]
    keep_last: Option<Count>,
    /// Keep the last snapshot of each of N hours
    #[arg(long, value_name = "N")]
    keep_hourly: Option<Count>,
    /// Keep the last snapshot of each of N days
    #[arg(long, value_name = "N")]
    keep_daily: Option<Count>,
    /// Keep the last snapshot of each of N weeks
    #[arg(long, value_name = "N")]
    keep_weekly: Option<Count>,
    /// Keep the last snapshot of each of N months
    #[arg(long, value_name = "N")]
    keep_monthly: Option<Count>,
    /// Keep the last snapshot of each of N years
    #[arg(long, value_name = "N")]
    keep_yearly: Option<Count>,
    /// Keep snapshots newer than TIME before the machine's latest, such as 30d or 1y6m (m: months)
    #[arg(long, value_name = "TIME")]
    keep_within: Option<Span>,
    /// Keep snapshots with this tag; can be repeated
    #[arg(long, value_name = "TAG")]
    keep_tag: Vec<String>,
    /// Keep at least the last N snapshots of each machine (default: 3)
    #[arg(long, value_name = "N")]
    keep_minimum: Option<NonZero<u32>>,
    /// Time zone of hours, days, weeks, months and years, such as Europe/Vienna (default: UTC)
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Only consider snapshots of this machine; can be repeated
    #[arg(long, value_name = "NAME")]
    machine: Vec<String>,
    /// Only consider snapshots with this tag; repeated: with all of them
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
}

impl TryFrom<RuleArgs> for Policy {
    type Error = CliError;

    fn try_from(args: RuleArgs) -> Result<Policy, CliError> {
        let mut rules = Rules {
            keep_last: args.keep_last,
            keep_hourly: args.keep_hourly,
            keep_daily: args.keep_daily,
            keep_weekly: args.keep_weekly,
            keep_monthly: args.keep_monthly,
            keep_yearly: args.keep_yearly,
            keep_within: args.keep_within,
            keep_tags: args.keep_tag,
            only_machines: args.machine,
            only_tags: args.tag,
            ..Rules::default()
        };
        if let Some(minimum) = args.keep_minimum {
            rules.keep_minimum = minimum;
        }
        if let Some(zone) = args.time_zone {
            let unknown = || errors::usage(format!("there is no time zone {zone} (write Europe/Vienna)"));
            rules.time_zone = zone.parse().map_err(|_| unknown())?;
        }
        Policy::try_from(rules).map_err(errors::of)
    }
}

#[derive(Serialize)]
struct Forgotten {
    dry_run: bool,
    /// The snapshots that were removed, or would be.
    snapshots: Vec<SnapshotId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Plan>,
}

pub(super) async fn run(args: ForgetArgs, work: &CommandContext) -> Result<(), CliError> {
    if args.snapshots.is_empty() {
        let policy = Policy::try_from(args.rules)?;
        let repository = args.access.open(work).await?;
        return by_rules(&repository, &policy, args.dry_run, work).await;
    }
    let repository = args.access.open(work).await?;
    let mut snapshots = Vec::with_capacity(args.snapshots.len());
    for name in &args.snapshots {
        snapshots.push(snapshot_arg::find(&repository, name, None, work).await?.id);
    }
    if !args.dry_run {
        // A held one is refused before anything is removed.
        let held = work.wait(repository.held()).await?;
        snapshots.sort_by_key(|id| !held.contains(id));
        for id in &snapshots {
            work.wait(repository.forget(*id)).await?;
        }
    }
    let forgotten = Forgotten { dry_run: args.dry_run, snapshots, plan: None };
    Answer::new(forgotten).give(work.json, |done, text| {
        let what = if done.dry_run { "would forget" } else { "forgot" };
        for id in &done.snapshots {
            text.line(format_args!("{what} {id}"));
        }
    })
}

async fn by_rules(
    repository: &Repository,
    policy: &Policy,
    dry_run: bool,
    work: &CommandContext,
) -> Result<(), CliError> {
    let planned = work.wait(repository.plan_to_forget(policy)).await?;
    let plan = planned.plan.clone();
    let (snapshots, warning) = if dry_run {
        let ForgetPlan { plan, clock_check: clock } = planned;
        (plan.forgotten().collect(), clock.err().map(|distrust| distrust.to_string()))
    } else {
        (work.wait(repository.forget_planned(planned)).await?, None)
    };
    let forgotten = Forgotten { dry_run, snapshots, plan: Some(plan) };
    Answer::new(forgotten).warn(warning).give(work.json, |done, text| {
        if let Some(plan) = &done.plan {
            text.block(plan);
        }
        if done.dry_run {
            text.line("nothing was forgotten: this was a dry run");
        } else if !done.snapshots.is_empty() {
            text.line("`loam repository collect` frees the space");
        }
    })
}
