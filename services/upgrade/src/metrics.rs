//! What the upgrade service counts.

use telemetry::KeyValue;

/// Releases by outcome (`refused`, `applied`, `put_back`).
pub(crate) const RELEASES: &str = "loam_upgrade_releases_total";

/// What came of a release.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    Refused,
    Applied,
    PutBack,
}

/// Counts a release. They are rare: looking the instrument up each time costs nothing that matters.
pub(crate) fn count(outcome: Outcome) {
    let word = match outcome {
        Outcome::Refused => "refused",
        Outcome::Applied => "applied",
        Outcome::PutBack => "put_back",
    };
    let releases = telemetry::meter("loam_upgrade").u64_counter(RELEASES).build();
    releases.add(1, &[KeyValue::new("outcome", word)]);
}
