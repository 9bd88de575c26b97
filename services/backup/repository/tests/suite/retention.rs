//! Retention keeps what its rules say, and its promises hold for any policy and any snapshots.

use std::collections::{BTreeSet, HashSet};

use backup_repository::SnapshotId;
use backup_repository::retention::{Candidate, Count, Plan, PlanError, Policy, Rules, plan};
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;
use ulid::Ulid;

fn id(number: u64) -> SnapshotId {
    Ulid::from(u128::from(number)).into()
}

fn candidate(number: u64, taken: DateTime<Utc>) -> Candidate {
    Candidate {
        id: id(number),
        machine: "web".into(),
        taken_at_unix_ms: taken.timestamp_millis().cast_unsigned(),
        tags: Vec::new(),
        held: false,
    }
}

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn policy(text: &str) -> Policy {
    toml::from_str(text).unwrap()
}

/// One snapshot each so many hours, as many as asked for.
fn each(hours: i64, from: &str, count: u64) -> Vec<Candidate> {
    (0..count).map(|n| candidate(n, utc(from) + TimeDelta::hours(hours * n.cast_signed()))).collect()
}

fn kept_times(plan: &Plan) -> Vec<String> {
    let kept = plan.snapshots().filter(|snapshot| !snapshot.is_forgotten());
    let time = |ms: u64| DateTime::from_timestamp_millis(ms.cast_signed()).unwrap();
    kept.map(|snapshot| time(snapshot.taken_at_unix_ms).format("%Y-%m-%d %H").to_string()).collect()
}

#[test]
fn the_preview_lists_line_by_line_what_is_kept_and_why() {
    let mut all = each(12, "2026-11-16T03:00:00Z", 8);
    all[1].tags = vec!["release".into()];
    all[2].held = true;
    all.push(Candidate { machine: "db".into(), ..candidate(99, utc("2026-11-01T03:00:00Z")) });
    all.push(Candidate { machine: "mail".into(), ..candidate(100, utc("2026-11-01T03:00:00Z")) });
    let policy = policy(
        "keep_last = 1\nkeep_daily = 2\nkeep_weekly = \"all\"\nkeep_within = \"12h\"\nkeep_tags = [\"release\"]\n\
         keep_minimum = 2\nonly_machines = [\"web\", \"db\"]\ntime_zone = \"Europe/Vienna\"",
    );
    let preview = plan(&policy, &all).unwrap().to_string();
    let expected = "\
db: keep 1, forget 0
  keep    Sun 2026-11-01 04:00:00  00000000000000000000000033  within 12h, last 1 of 1, daily 1 of 2, weekly 1 of all, minimum
web: keep 6, forget 2
  keep    Thu 2026-11-19 16:00:00  00000000000000000000000007  within 12h, last 1 of 1, daily 1 of 2, weekly 1 of all, minimum
  keep    Thu 2026-11-19 04:00:00  00000000000000000000000006  minimum
  keep    Wed 2026-11-18 16:00:00  00000000000000000000000005  daily 2 of 2
  forget  Wed 2026-11-18 04:00:00  00000000000000000000000004
  forget  Tue 2026-11-17 16:00:00  00000000000000000000000003
  keep    Tue 2026-11-17 04:00:00  00000000000000000000000002  held
  keep    Mon 2026-11-16 16:00:00  00000000000000000000000001  tag release
  keep    Mon 2026-11-16 04:00:00  00000000000000000000000000  oldest weekly
in all: keep 7, forget 2, out of scope 1 (times in Europe/Vienna)
";
    assert_eq!(preview, expected);
}

#[test]
fn a_plan_is_serialized_for_programs() {
    let serialized =
        plan(&policy("keep_daily = 1\nkeep_minimum = 1"), &each(12, "2026-11-16T03:00:00Z", 3)).unwrap();
    let serialized = serde_json::to_value(&serialized).unwrap();
    assert_eq!(serialized["time_zone"], "UTC");
    let snapshots = &serialized["machines"][0]["snapshots"];
    assert_eq!(snapshots[0]["verdict"], "keep");
    assert_eq!(snapshots[0]["reasons"][0]["because"], "rule");
    assert_eq!(snapshots[0]["reasons"][0]["of"], 1);
    assert_eq!(snapshots[1]["verdict"], "forget");
    assert_eq!(snapshots[1]["id"], "00000000000000000000000001");
}

/// The example of restic's manual: a backup every Sunday for twelve weeks.
#[test]
fn days_without_a_snapshot_do_not_count() {
    let plan =
        plan(&policy("keep_daily = 4\nkeep_minimum = 1"), &each(168, "2019-09-01T11:00:00Z", 12)).unwrap();
    assert_eq!(kept_times(&plan), ["2019-11-17 11", "2019-11-10 11", "2019-11-03 11", "2019-10-27 11"]);
}

/// The other example of that manual, with a shorter life: one backup a day.
#[test]
fn rules_overlap_and_any_of_them_keeps() {
    let rules = "keep_daily = 7\nkeep_weekly = 5\nkeep_monthly = 12\nkeep_yearly = 75\nkeep_minimum = 1";
    let plan = plan(&policy(rules), &each(24, "2016-01-01T12:00:00Z", 3653)).unwrap();
    // The last day is Wednesday, 31 December 2025: 7 days with a Sunday among them, 3 further Sundays, 11 further
    // months, 9 further years, and the oldest, because 75 years are not full.
    assert_eq!(plan.snapshots().filter(|snapshot| !snapshot.is_forgotten()).count(), 7 + 3 + 11 + 9 + 1);
    assert_eq!(kept_times(&plan).last().unwrap(), "2016-01-01 12");
}

#[test]
fn a_window_is_reckoned_from_the_newest_snapshot_of_the_machine() {
    let mut all = each(24, "2020-01-01T00:00:00Z", 20);
    all.push(Candidate { machine: "db".into(), ..candidate(99, utc("2026-01-01T00:00:00Z")) });
    let plan = plan(&policy("keep_within = \"within 5 days\"\nkeep_minimum = 1"), &all).unwrap();
    let kept = kept_times(&plan);
    assert_eq!(kept[0], "2026-01-01 00");
    assert_eq!(
        kept[1..],
        ["2020-01-20 00", "2020-01-19 00", "2020-01-18 00", "2020-01-17 00", "2020-01-16 00"]
    );
}

#[test]
fn each_hour_that_comes_twice_keeps_its_own() {
    let all = each(1, "2026-10-24T23:30:00Z", 4);
    let rules = "keep_hourly = \"all\"\nkeep_minimum = 1\ntime_zone = \"Europe/Vienna\"";
    assert_eq!(plan(&policy(rules), &all).unwrap().forgotten().count(), 0);
}

#[test]
fn snapshots_out_of_scope_are_neither_counted_nor_forgotten() {
    let mut all = each(24, "2026-01-01T00:00:00Z", 10);
    for candidate in &mut all[..8] {
        candidate.tags = vec!["nightly".into()];
    }
    let plan = plan(&policy("keep_last = 1\nkeep_minimum = 1\nonly_tags = [\"nightly\"]"), &all).unwrap();
    assert_eq!((plan.snapshots().count(), plan.out_of_scope), (8, 2));
    assert_eq!(plan.forgotten().collect::<Vec<_>>(), (0..7).rev().map(id).collect::<Vec<_>>());
}

#[test]
fn a_time_beyond_all_calendars_and_an_id_twice_are_refused() {
    let rules = policy("keep_last = 1");
    let far = Candidate { taken_at_unix_ms: u64::MAX, ..candidate(1, Utc::now()) };
    assert!(matches!(plan(&rules, &[far]), Err(PlanError::TimeOutOfRange { .. })));
    let one = candidate(1, utc("2026-01-01T00:00:00Z"));
    assert_eq!(plan(&rules, &[one.clone(), one]), Err(PlanError::DuplicateSnapshot { id: id(1) }));
    assert_eq!(plan(&rules, &[]).unwrap().snapshots().count(), 0);
}

fn count() -> impl Strategy<Value = Option<Count>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(Count::All)),
        4 => (1u32..8).prop_map(|most| most.to_string().parse().ok()),
    ]
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let counts = (count(), count(), count(), count(), count(), count());
    let window = prop::option::of((0u32..3, 0u32..40, 1u32..50));
    let zone =
        prop::sample::select(vec![Tz::UTC, Tz::Europe__Vienna, Tz::Pacific__Apia, Tz::America__St_Johns]);
    (counts, window, any::<bool>(), 1u32..5, zone).prop_filter_map(
        "says nothing",
        |(counts, window, tag, minimum, zone)| {
            let (keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly) = counts;
            let rules = Rules {
                keep_last,
                keep_hourly,
                keep_daily,
                keep_weekly,
                keep_monthly,
                keep_yearly,
                keep_within: window.map(|(m, d, h)| format!("{m}m{d}d{h}h").parse().unwrap()),
                keep_tags: if tag { vec!["release".into()] } else { Vec::new() },
                keep_minimum: minimum.try_into().unwrap(),
                time_zone: zone,
                ..Rules::default()
            };
            Policy::try_from(rules).ok()
        },
    )
}

/// Bursts of snapshots of two machines, around changes of summer time and of the year, and in the day that Samoa
/// left out.
fn any_snapshots() -> impl Strategy<Value = Vec<Candidate>> {
    let around =
        prop::sample::select(vec!["2011-12-30T10:00:00Z", "2010-11-07T02:31:00Z", "2026-10-25T01:00:00Z"]);
    let far = prop_oneof![-600i64..600, -30_000i64..30_000, -2_000_000i64..2_000_000];
    let one = (around, far, 0u8..10, 0u8..12, any::<bool>());
    prop::collection::vec(one, 0..60).prop_map(|all| {
        let make =
            |(number, (around, minutes, tag, held, first)): (usize, (&str, i64, u8, u8, bool))| Candidate {
                machine: if first { "web".into() } else { "db".into() },
                tags: if tag == 0 { vec!["release".into()] } else { Vec::new() },
                held: held == 0,
                ..candidate(number as u64, utc(around) + TimeDelta::minutes(minutes))
            };
        all.into_iter().enumerate().map(make).collect()
    })
}

fn without_forgotten(plan: &Plan, all: &[Candidate]) -> Vec<Candidate> {
    let gone: HashSet<_> = plan.forgotten().collect();
    all.iter().filter(|candidate| !gone.contains(&candidate.id)).cloned().collect()
}

/// What the rules of restic's manual keep of one machine, read literally.
fn by_the_manual(policy: &Policy, machine: &[&Candidate]) -> BTreeSet<SnapshotId> {
    let rules = policy.rules();
    let mut sorted = machine.to_vec();
    sorted.sort_by_key(|c| (c.taken_at_unix_ms, c.id));
    let newest_first: Vec<_> = sorted.iter().rev().copied().collect();
    let at = |c: &Candidate| DateTime::from_timestamp_millis(c.taken_at_unix_ms.cast_signed()).unwrap();
    let shown = |c: &Candidate, form: &str| at(c).with_timezone(&rules.time_zone).format(form).to_string();
    let mut kept = BTreeSet::new();
    for (count, form) in [
        (rules.keep_last, None),
        (rules.keep_hourly, Some("%Y-%m-%d %H %z")),
        (rules.keep_daily, Some("%Y-%m-%d")),
        (rules.keep_weekly, Some("%G-%V")),
        (rules.keep_monthly, Some("%Y-%m")),
        (rules.keep_yearly, Some("%Y")),
    ] {
        let Some(count) = count else { continue };
        // "For the last n periods which have one or more snapshots, keep only the most recent one for each."
        let mut periods: Vec<(String, SnapshotId)> = Vec::new();
        for c in &newest_first {
            let period = form.map_or_else(|| c.id.to_string(), |form| shown(c, form));
            if periods.iter().all(|(known, _)| *known != period) {
                periods.push((period, c.id));
            }
        }
        let most = if let Count::Newest(most) = count { most.get() as usize } else { usize::MAX };
        kept.extend(periods.iter().take(most).map(|(_, id)| *id));
        // "If there are not enough snapshots to keep one for each, the oldest snapshot is kept additionally."
        if periods.len() < most {
            kept.extend(newest_first.last().map(|c| c.id));
        }
    }
    kept.extend(machine.iter().filter(|c| c.held).map(|c| c.id));
    kept.extend(machine.iter().filter(|c| c.tags.iter().any(|t| rules.keep_tags.contains(t))).map(|c| c.id));
    kept.extend(newest_first.iter().take(rules.keep_minimum.get() as usize).map(|c| c.id));
    kept
}

proptest! {
    #[test]
    fn planning_again_forgets_nothing_more(policy in any_policy(), all in any_snapshots()) {
        let first = plan(&policy, &all).unwrap();
        let left = without_forgotten(&first, &all);
        let second = plan(&policy, &left).unwrap();
        prop_assert_eq!(second.forgotten().count(), 0, "{}\n{}", first, second);
    }

    #[test]
    fn every_machine_keeps_its_minimum_of_newest(policy in any_policy(), all in any_snapshots()) {
        let minimum = policy.rules().keep_minimum.get() as usize;
        for machine in plan(&policy, &all).unwrap().machines {
            let newest = machine.snapshots.iter().take(minimum);
            prop_assert!(newest.clone().all(|snapshot| !snapshot.is_forgotten()));
            prop_assert!(machine.snapshots.is_sorted_by_key(|j| std::cmp::Reverse((j.taken_at_unix_ms, j.id))));
        }
    }

    #[test]
    fn what_is_held_is_never_forgotten(policy in any_policy(), all in any_snapshots()) {
        let held: HashSet<_> = all.iter().filter(|c| c.held).map(|c| c.id).collect();
        prop_assert!(plan(&policy, &all).unwrap().forgotten().all(|id| !held.contains(&id)));
    }

    #[test]
    fn newer_snapshots_never_bring_a_forgotten_one_back(
        policy in any_policy(), all in any_snapshots(), older in 0usize..60,
    ) {
        let mut all = all;
        all.sort_by_key(|c| (c.taken_at_unix_ms, c.id));
        let before = plan(&policy, &all[..older.min(all.len())]).unwrap();
        let after: HashSet<_> = plan(&policy, &all).unwrap().forgotten().collect();
        prop_assert!(before.forgotten().all(|id| after.contains(&id)));
    }

    #[test]
    fn the_order_of_the_snapshots_does_not_matter(
        policy in any_policy(), (all, shuffled) in any_snapshots().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
    ) {
        prop_assert_eq!(plan(&policy, &all), plan(&policy, &shuffled));
    }

    #[test]
    fn it_keeps_what_a_plain_reading_of_restics_manual_keeps(policy in any_policy(), all in any_snapshots()) {
        // Windows have tests of their own.
        let policy = Policy::try_from(Rules { keep_within: None, ..policy.rules().clone() });
        prop_assume!(policy.is_ok());
        let policy = policy.unwrap();
        for machine in ["web", "db"] {
            let of: Vec<_> = all.iter().filter(|c| c.machine == machine).collect();
            let planned = plan(&policy, &of.iter().copied().cloned().collect::<Vec<_>>()).unwrap();
            let kept: BTreeSet<_> = planned.snapshots().filter(|j| !j.is_forgotten()).map(|j| j.id).collect();
            prop_assert_eq!(&kept, &by_the_manual(&policy, &of), "{}", planned);
        }
    }
}
