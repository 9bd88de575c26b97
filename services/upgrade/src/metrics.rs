//! The metrics of the upgrade service.

use telemetry::KeyValue;

/// Releases by outcome (`refused`, `applied`, `rolled_back`).
pub(crate) const RELEASES: &str = "loam_upgrade_releases_total";

/// The outcome of a release.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ReleaseOutcome {
    Refused,
    Applied,
    RolledBack,
}

/// Counts a release. They are rare: making the instrument anew each time costs nothing that matters.
pub(crate) fn count(outcome: ReleaseOutcome) {
    let label = match outcome {
        ReleaseOutcome::Refused => "refused",
        ReleaseOutcome::Applied => "applied",
        ReleaseOutcome::RolledBack => "rolled_back",
    };
    let releases = telemetry::meter("loam_upgrade").u64_counter(RELEASES).build();
    releases.add(1, &[KeyValue::new("outcome", label)]);
}
