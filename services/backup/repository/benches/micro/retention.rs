//! How long it takes to plan.

use std::time::Instant;

use backup_repository::retention::{Candidate, Policy, plan};
use ulid::Ulid;

const SNAPSHOTS: u64 = 100_000;
const MACHINES: u64 = 20;
const HOUR_MS: u64 = 3_600_000;

pub(crate) fn run() {
    // Every machine hourly, for more than half a year.
    let one = |number: u64| Candidate {
        id: Ulid::from(u128::from(number)).into(),
        machine: format!("machine-{}", number % MACHINES),
        taken_at_unix_ms: 1_700_000_000_000 + number / MACHINES * HOUR_MS,
        tags: vec!["nightly".into()],
        held: number.is_multiple_of(1000),
    };
    let snapshots: Vec<_> = (0..SNAPSHOTS).map(one).collect();
    let policy = r#"{"keep_last": 10, "keep_hourly": "all", "keep_daily": "all", "keep_weekly": "all",
        "keep_monthly": "all", "keep_yearly": "all", "keep_within": "30d", "keep_tags": ["release"],
        "time_zone": "Europe/Vienna"}"#;
    let policy: Policy = serde_json::from_str(policy).unwrap();
    println!("\nA plan for {SNAPSHOTS} snapshots of {MACHINES} machines, every rule in use");
    for _ in 0..3 {
        let begun = Instant::now();
        let plan = plan(&policy, &snapshots).unwrap();
        let planned = begun.elapsed();
        let preview = plan.to_string().len();
        println!("planned in {planned:.0?}, printed ({preview} bytes) after {:.0?}", begun.elapsed());
    }
}
