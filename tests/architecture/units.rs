//! The systemd units: what they may do, as systemd itself says, and that each limit has its reason beside it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

use crate::sources;

/// A unit's exposure, as `systemd-analyze security` counts it, is at most this.
const EXPOSURE_MAX: [(&str, f32); 7] = [
    ("loam-proxy", 2.0),
    ("loam-scheduler", 2.0),
    ("loam-upgrade", 2.0),
    ("loam-backup", 2.0),
    ("loam-nats", 2.0),
    ("loam-tables", 2.0),
    ("loam-provisioner", 4.0),
];

fn folder() -> PathBuf {
    sources::workspace().join("deploy/systemd")
}

fn text(unit: &str) -> String {
    std::fs::read_to_string(folder().join(format!("{unit}.service"))).expect("there is such a unit")
}

/// The values of a setting, in the order of the file.
fn values<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

#[test]
fn no_unit_may_do_more_than_its_service_needs() {
    for (unit, most) in EXPOSURE_MAX {
        let path = folder().join(format!("{unit}.service"));
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--no-pager"])
            .arg(path)
            .output();
        let output = output.expect("systemd-analyze runs: deploy/packages test installs it");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let overall = said.lines().rfind(|line| line.contains("Overall exposure level"));
        let level =
            overall.and_then(|line| line.rsplit(": ").next()?.split_whitespace().next()?.parse::<f32>().ok());
        let level =
            level.unwrap_or_else(|| panic!("{unit}: {said}{}", String::from_utf8_lossy(&output.stderr)));
        assert!(level <= most, "{unit}: {level}\n{said}");
    }
}

#[test]
fn every_unit_is_checked_and_has_limits() {
    let entries = std::fs::read_dir(folder()).expect("a folder").flatten();
    let found: BTreeSet<String> = entries
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".service")?.to_string()))
        .filter(|unit| unit != "loam")
        .collect();
    assert_eq!(found, EXPOSURE_MAX.iter().map(|(unit, _)| unit.to_string()).collect());
    for unit in found {
        let text = text(&unit);
        for limit in ["MemoryMax", "TasksMax", "LimitCORE", "CapabilityBoundingSet"] {
            assert_eq!(values(&text, limit).len(), 1, "{unit}: {limit}");
        }
        let is_service = !["loam-nats", "loam-tables"].contains(&unit.as_str());
        assert_eq!(
            is_service,
            values(&text, "Type") == ["notify"] && values(&text, "WatchdogSec").len() == 1,
            "{unit}"
        );
    }
}

#[test]
fn every_capability_has_its_reason_beside_it() {
    for (unit, _) in EXPOSURE_MAX {
        let text = text(unit);
        let comments: String = text.lines().filter(|line| line.starts_with('#')).collect();
        let capabilities = values(&text, "CapabilityBoundingSet");
        for capability in capabilities.iter().flat_map(|all| all.split_whitespace()) {
            let reason = format!("# {capability}: ");
            assert!(comments.contains(&reason), "{unit}: why {capability}?");
        }
    }
}

#[test]
fn every_user_of_a_unit_is_made() {
    let made = std::fs::read_to_string(folder().join("loam.sysusers.conf")).expect("readable");
    let made: BTreeSet<&str> =
        made.lines().filter_map(|line| line.strip_prefix("u ")?.split_whitespace().next()).collect();
    let texts: Vec<String> = EXPOSURE_MAX.iter().map(|(unit, _)| text(unit)).collect();
    let used: BTreeSet<&str> = texts.iter().flat_map(|text| values(text, "User")).collect();
    assert_eq!(used, made);
}
