//! The metrics of the provisioner. Their names are here and nowhere else.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use contract::provisioner::VmState;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter};
use opentelemetry::{KeyValue, global};
use provisioner_domain::Inventory;

/// From a VM's start until its guest answered, in seconds.
pub const READY_SECONDS_NAME: &str = "loam_provisioner_vm_ready_seconds";
/// VMs, by state.
pub const VMS_NAME: &str = "loam_provisioner_vms";
/// Operations whose disk exports are open.
pub const DISK_EXPORTS_NAME: &str = "loam_provisioner_disk_exports";
/// Disk exports that were closed because nobody renewed their lease.
pub const LEASES_EXPIRED_NAME: &str = "loam_provisioner_export_leases_expired_total";
/// VMs with our mark that no record knows, by what was done about them: `cleaned` or `reported`.
pub const ORPHANS_NAME: &str = "loam_provisioner_orphaned_vms_total";

/// All of them; dashboards and alerts are checked against this list.
pub const NAMES: [&str; 5] =
    [READY_SECONDS_NAME, VMS_NAME, DISK_EXPORTS_NAME, LEASES_EXPIRED_NAME, ORPHANS_NAME];

fn meter() -> Meter {
    global::meter("loam_provisioner")
}

pub(crate) static READY_SECONDS: LazyLock<SecondsHistogram> = LazyLock::new(|| {
    let bounds = vec![0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0];
    SecondsHistogram(meter().f64_histogram(READY_SECONDS_NAME).with_boundaries(bounds).build())
});
pub(crate) static VMS: LazyLock<Gauge<u64>> = LazyLock::new(|| meter().u64_gauge(VMS_NAME).build());
pub(crate) static DISK_EXPORTS: LazyLock<Gauge<u64>> =
    LazyLock::new(|| meter().u64_gauge(DISK_EXPORTS_NAME).build());
pub(crate) static LEASES_EXPIRED: LazyLock<Counter<u64>> =
    LazyLock::new(|| meter().u64_counter(LEASES_EXPIRED_NAME).build());
pub(crate) static ORPHANS: LazyLock<Counter<u64>> =
    LazyLock::new(|| meter().u64_counter(ORPHANS_NAME).build());

/// A histogram of seconds without attributes.
pub(crate) struct SecondsHistogram(Histogram<f64>);

impl SecondsHistogram {
    pub(crate) fn record(&self, seconds: f64) {
        self.0.record(seconds, &[]);
    }
}

/// Measures how many VMs are in each state.
pub(crate) fn measure_vms(inventory: &Inventory) {
    let mut vms: BTreeMap<VmState, u64> = VmState::ALL.map(|state| (state, 0)).into();
    for record in inventory.vms() {
        *vms.entry(record.state()).or_default() += 1;
    }
    for (state, count) in vms {
        VMS.record(count, &[KeyValue::new("state", state.name())]);
    }
}
