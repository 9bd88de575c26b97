//! `loam repository forget`: by name, or by rules.

use std::num::NonZero;

use backup_repository::retention::{Count, Plan, Policy, Rules, Span};
use backup_repository::{ForgetPlan, Repository, SnapshotId};
use clap::Args;
use serde::Serialize;

use super::access::Access;
use super::answer::Answer;
use super::work::Work;
use super::{trouble, which};
use crate::cli::exit::Trouble;

#[derive(Debug, Args)]
pub(in crate::cli) struct ForgetArgs {
    /// The snapshots: ids, or the first characters of them
    #[arg(value_name = "SNAPSHOT", conflicts_with = "RuleArgs")]
    snapshots: Vec<String>,
    /// Say what would be forgotten and why, and forget nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    rules: RuleArgs,
    #[command(flatten)]
    access: Access,
}

/// A snapshot is kept when one of these wants it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Rules: what one of them wants is kept")]
struct RuleArgs {
    /// The newest ones: a number, or `all`
    #[arg(long, value_name = "N")]
    keep_last: Option<Count>,
    /// The last of each of so many hours
    #[arg(long, value_name = "N")]
    keep_hourly: Option<Count>,
    /// The last of each of so many days
    #[arg(long, value_name = "N")]
    keep_daily: Option<Count>,
    /// The last of each of so many weeks
    #[arg(long, value_name = "N")]
    keep_weekly: Option<Count>,
    /// The last of each of so many months
    #[arg(long, value_name = "N")]
    keep_monthly: Option<Count>,
    /// The last of each of so many years
    #[arg(long, value_name = "N")]
    keep_yearly: Option<Count>,
    /// All that are younger than this when the machine's newest was taken, as in 30d or 1y6m
    #[arg(long, value_name = "TIME")]
    keep_within: Option<Span>,
    /// All with this tag; may be given again
    #[arg(long, value_name = "TAG")]
    keep_tag: Vec<String>,
    /// So many of each machine's newest in any case; 3 unless said
    #[arg(long, value_name = "N")]
    keep_minimum: Option<NonZero<u32>>,
    /// The time zone whose hours, days, weeks, months and years are meant, as in Europe/Vienna; UTC unless said
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    /// Look only at snapshots of this machine; may be given again
    #[arg(long, value_name = "NAME")]
    machine: Vec<String>,
    /// Look only at snapshots with this tag; given again, with all of them
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
}

impl TryFrom<RuleArgs> for Policy {
    type Error = Trouble;

    fn try_from(args: RuleArgs) -> Result<Policy, Trouble> {
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
            let unknown = || trouble::usage(format!("there is no time zone {zone} (write Europe/Vienna)"));
            rules.time_zone = zone.parse().map_err(|_| unknown())?;
        }
        Policy::try_from(rules).map_err(trouble::of)
    }
}

#[derive(Serialize)]
struct Forgotten {
    dry_run: bool,
    /// What is forgotten, or would be.
    snapshots: Vec<SnapshotId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<Plan>,
}

pub(super) async fn run(args: ForgetArgs, work: &Work) -> Result<(), Trouble> {
    if args.snapshots.is_empty() {
        let policy = Policy::try_from(args.rules)?;
        let repository = args.access.open(work).await?;
        return by_rules(&repository, &policy, args.dry_run, work).await;
    }
    let repository = args.access.open(work).await?;
    let mut snapshots = Vec::with_capacity(args.snapshots.len());
    for word in &args.snapshots {
        snapshots.push(which::find(&repository, word, None, work).await?.id);
    }
    if !args.dry_run {
        for id in &snapshots {
            work.wait(repository.forget(*id)).await?;
        }
    }
    let forgotten = Forgotten { dry_run: args.dry_run, snapshots, plan: None };
    Answer::new(forgotten).give(work.json, |done| {
        let what = if done.dry_run { "would forget" } else { "forgot" };
        done.snapshots.iter().for_each(|id| println!("{what} {id}"));
    })
}

async fn by_rules(
    repository: &Repository,
    policy: &Policy,
    dry_run: bool,
    work: &Work,
) -> Result<(), Trouble> {
    let planned = work.wait(repository.plan_to_forget(policy)).await?;
    let plan = planned.plan.clone();
    let (snapshots, warning) = if dry_run {
        let ForgetPlan { plan, clock } = planned;
        (plan.forgotten().collect(), clock.err().map(|distrust| distrust.to_string()))
    } else {
        (work.wait(repository.forget_planned(planned)).await?, None)
    };
    let forgotten = Forgotten { dry_run, snapshots, plan: Some(plan) };
    Answer::new(forgotten).warn(warning).give(work.json, |done| {
        if let Some(plan) = &done.plan {
            print!("{plan}");
        }
        if done.dry_run {
            println!("nothing was forgotten: this was a dry run");
        } else if !done.snapshots.is_empty() {
            println!("`loam repository collect` gives back the room");
        }
    })
}
