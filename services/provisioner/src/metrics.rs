//! Everything the provisioner counts. Names are written here and nowhere else.

use std::sync::LazyLock;

use opentelemetry::global;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter};

/// From a machine's start until it answered.
pub const READY_SECONDS_NAME: &str = "loam_provisioner_ready_seconds";
/// Machines, by state.
pub const VMS_NAME: &str = "loam_provisioner_vms";
/// Exports that stand open.
pub const DOORS_NAME: &str = "loam_provisioner_doors";
/// Exports that were closed because nobody renewed their lease.
pub const LEASES_RUN_OUT_NAME: &str = "loam_provisioner_leases_run_out_total";
/// Machines with our mark that no record knows, by what was done about them: `cleaned` or `reported`.
pub const ORPHANS_NAME: &str = "loam_provisioner_orphans_total";
/// Rounds of the reconciler that the hypervisor did not answer.
pub const UNANSWERED_ROUNDS_NAME: &str = "loam_provisioner_unanswered_rounds_total";

/// All of them; dashboards and alerts are held against this list.
pub const NAMES: [&str; 6] =
    [READY_SECONDS_NAME, VMS_NAME, DOORS_NAME, LEASES_RUN_OUT_NAME, ORPHANS_NAME, UNANSWERED_ROUNDS_NAME];

fn progress() -> Meter {
    global::progress("loam_provisioner")
}

pub(crate) static READY_SECONDS: LazyLock<Timed> = LazyLock::new(|| {
    let bounds = vec![0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0];
    Timed(progress().f64_histogram(READY_SECONDS_NAME).with_boundaries(bounds).build())
});
pub(crate) static VMS: LazyLock<Gauge<u64>> = LazyLock::new(|| progress().u64_gauge(VMS_NAME).build());
pub(crate) static DISK_EXPORTS: LazyLock<Gauge<u64>> = LazyLock::new(|| progress().u64_gauge(DOORS_NAME).build());
pub(crate) static LEASES_RUN_OUT: LazyLock<Counter<u64>> =
    LazyLock::new(|| progress().u64_counter(LEASES_RUN_OUT_NAME).build());
pub(crate) static ORPHANS: LazyLock<Counter<u64>> =
    LazyLock::new(|| progress().u64_counter(ORPHANS_NAME).build());
pub(crate) static UNANSWERED_ROUNDS: LazyLock<Counter<u64>> =
    LazyLock::new(|| progress().u64_counter(UNANSWERED_ROUNDS_NAME).build());

/// A histogram of seconds without attributes.
pub(crate) struct Timed(Histogram<f64>);

impl Timed {
    pub(crate) fn record(&self, seconds: f64) {
        self.0.record(seconds, &[]);
    }
}
