//! The metrics of the supervisor.

/// Builds that were put back because the one after them kept dying, by service.
pub(super) const BUILDS_PUT_BACK: &str = "loam_supervisor_builds_put_back_total";
