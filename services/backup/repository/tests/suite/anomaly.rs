//! What is unusual about a backup is found and reported, and ordinary days have no findings.

use std::time::Duration;

use backup_repository::anomaly::{AnomalyThresholds, Backup, Detector, Disk, Finding, Severity};

const GIB: u64 = 1 << 30;
const DAY_MS: u64 = 86_400_000;

fn disk(name: &str, gib: u64) -> Disk {
    Disk { name: name.into(), size_bytes: gib * GIB }
}

/// An ordinary backup on some day: two of 100 GiB are new and compress to the half.
fn ordinary(day: u64) -> Backup {
    Backup {
        taken_at_unix_ms: day * DAY_MS,
        disks: vec![disk("vda", 200)],
        used_bytes: 100 * GIB,
        read_bytes: 100 * GIB,
        new_bytes: 2 * GIB + day % 3 * (GIB / 10),
        stored_bytes: GIB,
    }
}

fn history(days: u64) -> Vec<Backup> {
    let first = Backup { new_bytes: 100 * GIB, stored_bytes: 50 * GIB, ..ordinary(1) };
    std::iter::once(first).chain((2..=days).map(ordinary)).collect()
}

fn judged(new: &Backup, earlier: &[Backup]) -> Vec<Finding> {
    Detector::try_from(AnomalyThresholds::default()).unwrap().find(new, earlier)
}

/// The only finding.
fn only(mut findings: Vec<Finding>) -> Finding {
    assert_eq!(findings.len(), 1, "{findings:?}");
    findings.remove(0)
}

#[test]
fn an_ordinary_day_is_left_alone() {
    assert_eq!(judged(&ordinary(11), &history(10)), []);
}

#[test]
fn a_first_backup_is_not_unusual() {
    assert_eq!(judged(&history(1)[0], &[]), []);
}

#[test]
fn two_backups_before_are_too_few_for_statistics_and_three_are_enough() {
    let encrypted = |day| Backup { new_bytes: 95 * GIB, stored_bytes: 95 * GIB, ..ordinary(day) };
    assert_eq!(judged(&encrypted(3), &history(2)), []);
    assert_eq!(only(judged(&encrypted(4), &history(3))).severity(), Severity::Alarm);
}

#[test]
fn much_that_is_new_and_does_not_compress_looks_like_encryption() {
    let new = Backup { new_bytes: 60 * GIB, stored_bytes: 60 * GIB, ..ordinary(11) };
    let finding = only(judged(&new, &history(10)));
    assert_eq!(finding.severity(), Severity::Alarm);
    assert_eq!(
        finding.to_string(),
        "looks as if malware had encrypted it: 60 % of the data is new (usually 2.1 %) and compresses to 100 % \
         (usually 48 %)"
    );
}

#[test]
fn an_upgrade_of_the_system_is_much_that_is_new_and_compresses() {
    let new = Backup { new_bytes: 40 * GIB, stored_bytes: 18 * GIB, ..ordinary(11) };
    let finding = only(judged(&new, &history(10)));
    assert_eq!(finding.severity(), Severity::Warning);
    assert_eq!(
        finding.to_string(),
        "40 % of the data is new, usually 2.1 %, and more than 20 % is unusual here"
    );
}

#[test]
fn a_copied_film_does_not_compress_and_is_no_mass_of_changes() {
    let new = Backup { new_bytes: 6 * GIB, stored_bytes: 6 * GIB, ..ordinary(11) };
    let finding = only(judged(&new, &history(10)));
    assert_eq!(finding.severity(), Severity::Notice);
    assert_eq!(finding.to_string(), "new data compresses only to 100 %, usually to 48 %");
}

#[test]
fn a_machine_that_changes_much_every_day_may_do_so() {
    let busy =
        |day: u64| Backup { new_bytes: (30 + day * 7 % 20) * GIB, stored_bytes: 20 * GIB, ..ordinary(day) };
    let earlier: Vec<_> = (1..=20).map(busy).collect();
    assert_eq!(judged(&busy(21), &earlier), []);
}

#[test]
fn a_machine_whose_disks_are_encrypted_anyway_shows_only_the_first_sign() {
    let sealed = |day| Backup { stored_bytes: 2 * GIB, new_bytes: 2 * GIB, ..ordinary(day) };
    let earlier: Vec<_> = (1..=10).map(sealed).collect();
    let new = Backup { new_bytes: 90 * GIB, stored_bytes: 90 * GIB, ..ordinary(11) };
    assert!(matches!(only(judged(&new, &earlier)), Finding::MassChange { .. }));
}

#[test]
fn a_small_machine_does_not_cry_wolf() {
    const KIB: u64 = 1024;
    let small = |day, new_bytes| Backup {
        used_bytes: 2048 * KIB,
        new_bytes,
        stored_bytes: new_bytes,
        ..ordinary(day)
    };
    let earlier: Vec<_> = (1..=10).map(|day| small(day, 16 * KIB)).collect();
    assert_eq!(judged(&small(11, 900 * KIB), &earlier), []);
}

#[test]
fn a_disk_that_shrinks_on_the_inside_is_noticed() {
    let emptied = Backup { used_bytes: 60 * GIB, ..ordinary(11) };
    let finding = only(judged(&emptied, &history(10)));
    assert_eq!(finding.to_string(), "60.0 GiB in use, and the backup before had 100.0 GiB");
    let cleaned_up = Backup { used_bytes: 70 * GIB, ..ordinary(11) };
    assert_eq!(judged(&cleaned_up, &history(10)), []);
}

#[test]
fn less_than_the_least_is_too_small_from_the_first_backup_on() {
    let detector =
        Detector::try_from(AnomalyThresholds { used_bytes_min: 150 * GIB, ..AnomalyThresholds::default() })
            .unwrap();
    let finding = only(detector.find(&ordinary(1), &[]));
    assert_eq!(finding.to_string(), "100.0 GiB in use, and 150.0 GiB is the least expected");
}

#[test]
fn disks_that_come_go_or_change_size_are_named() {
    let earlier = [Backup { disks: vec![disk("vda", 10), disk("vdb", 20), disk("vdc", 5)], ..ordinary(1) }];
    let new = Backup { disks: vec![disk("vda", 8), disk("vdd", 1), disk("vdc", 6)], ..ordinary(2) };
    let said: Vec<_> = judged(&new, &earlier).iter().map(Finding::to_string).collect();
    assert_eq!(
        said,
        [
            "disk vda had 10.0 GiB and has 8.0 GiB",
            "disk vdb of 20.0 GiB is missing",
            "disk vdc had 5.0 GiB and has 6.0 GiB",
            "disk vdd of 1.0 GiB is new",
        ]
    );
}

#[test]
fn a_backup_that_comes_late_or_not_at_all_is_noticed() {
    let detector = Detector::try_from(AnomalyThresholds::default()).unwrap();
    let finding = only(detector.find(&ordinary(14), &history(10)));
    assert_eq!(finding.to_string(), "no backup for 4.0 days, and one was expected within 36.0 hours");
    let age = Duration::from_hours(37);
    let hours = |hours: u64| hours * 3_600_000;
    let expected = Duration::from_hours(36);
    assert_eq!(detector.late(0, hours(37)), Some(Finding::Late { age, expected }));
    assert_eq!(detector.late(0, hours(36)), None);
    assert_eq!(detector.late(hours(5), 0), None);
    let whenever =
        Detector::try_from(AnomalyThresholds { age_hours_max: 0, ..AnomalyThresholds::default() }).unwrap();
    assert_eq!(whenever.late(0, u64::MAX), None);
}

#[test]
fn backups_from_later_are_no_history_and_order_does_not_matter() {
    let mut earlier = history(10);
    earlier.push(Backup { used_bytes: 500 * GIB, ..ordinary(12) });
    earlier.reverse();
    assert_eq!(judged(&ordinary(11), &earlier), []);
}

#[test]
fn the_most_severe_comes_first_and_findings_are_serialized_for_programs() {
    let new = Backup {
        disks: vec![disk("vda", 200), disk("vdb", 1)],
        new_bytes: 95 * GIB,
        stored_bytes: 95 * GIB,
        ..ordinary(20)
    };
    let findings = judged(&new, &history(10));
    let gravities: Vec<_> = findings.iter().map(Finding::severity).collect();
    assert_eq!(gravities, [Severity::Alarm, Severity::Warning, Severity::Notice]);
    let serialized = serde_json::to_value(&findings).unwrap();
    assert_eq!(serialized[0]["finding"], "likely_encryption");
    assert_eq!(serialized[0]["changed"], 0.95);
}

#[test]
fn contradictory_expectations_are_refused_with_the_reason() {
    for (text, why) in [
        ("shrink_percent_max = 0", "1 to 100 percent"),
        ("changed_percent_min = 101", "1 to 100 percent"),
        ("compressible_up_to_percent = 95", "below incompressible_from_percent"),
        ("history_min = 2", "it takes 3 or more"),
        ("history_min = 31", "no more than history_max"),
        ("history_max = 4000", "the most is 3650"),
        ("deviations_max = 0", "half of all backups"),
    ] {
        let expectations: AnomalyThresholds = toml::from_str(text).unwrap();
        let refused = Detector::try_from(expectations).unwrap_err().to_string();
        assert!(refused.contains(why), "{text}: {refused}");
    }
    assert!(toml::from_str::<AnomalyThresholds>("shrink_percent = 3").is_err());
}
