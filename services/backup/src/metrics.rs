//! What the service counts; all names of its metrics are here.

use std::time::Duration;

use telemetry::{Counter, Histogram, KeyValue, UpDownCounter, meter};

/// Backups that ended, by outcome (`sealed`, `undone`).
pub const BACKUPS: &str = "loam_backup_backups_total";
/// How long copying took, of backups that were sealed.
pub const COPY_DURATION: &str = "loam_backup_copy_duration_seconds";
/// Bytes read from machines.
pub const READ: &str = "loam_backup_read_bytes_total";
/// Bytes that the store did not have yet, before compression.
pub const NEW: &str = "loam_backup_new_bytes_total";
/// Bytes written to the store.
pub const STORED: &str = "loam_backup_stored_bytes_total";
/// Restores that ended, by outcome (`done`, `undone`).
pub const RESTORES: &str = "loam_backup_restores_total";
/// Verifications that ended, by outcome (`sound`, `damaged`).
pub const VERIFICATIONS: &str = "loam_backup_verifications_total";
/// 1 while the store is open.
pub const STORE_OPEN: &str = "loam_backup_store_open";

/// From a small disk that did not change to a large one read whole.
const COPY_BOUNDS_SECONDS: [f64; 10] = [0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0];

/// The instruments; clones count into the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    backups: Counter<u64>,
    copy_duration: Histogram<f64>,
    read: Counter<u64>,
    new: Counter<u64>,
    stored: Counter<u64>,
    restores: Counter<u64>,
    verifications: Counter<u64>,
    store_open: UpDownCounter<i64>,
}

impl Default for Metrics {
    fn default() -> Self {
        let meter = meter("loam_backup");
        let counter = |name, about| meter.u64_counter(name).with_description(about).build();
        Metrics {
            backups: counter(BACKUPS, "backups that ended, by outcome"),
            copy_duration: meter
                .f64_histogram(COPY_DURATION)
                .with_description("from the first byte read to the draft")
                .with_boundaries(COPY_BOUNDS_SECONDS.to_vec())
                .build(),
            read: counter(READ, "bytes read from machines"),
            new: counter(NEW, "bytes new to the store, before compression"),
            stored: counter(STORED, "bytes written to the store"),
            restores: counter(RESTORES, "restores that ended, by outcome"),
            verifications: counter(VERIFICATIONS, "verifications that ended, by outcome"),
            store_open: meter
                .i64_up_down_counter(STORE_OPEN)
                .with_description("1 while the store is open")
                .build(),
        }
    }
}

impl Metrics {
    /// A backup was sealed.
    pub fn sealed(&self, backup: &contract::backup::Backup) {
        self.backups.add(1, &[KeyValue::new("outcome", "sealed")]);
        self.copy_duration.record(Duration::from_millis(backup.took_ms).as_secs_f64(), &[]);
        self.read.add(backup.bytes_read.0, &[]);
        self.new.add(backup.bytes_new.0, &[]);
        self.stored.add(backup.bytes_stored.0, &[]);
    }

    /// A backup was given up.
    pub fn backup_undone(&self) {
        self.backups.add(1, &[KeyValue::new("outcome", "undone")]);
    }

    /// A restore ended.
    pub fn restored(&self, outcome: &'static str) {
        self.restores.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    /// A verification ended.
    pub fn verified(&self, outcome: &'static str) {
        self.verifications.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    /// The store was opened or lost.
    pub fn store_open(&self, open: bool) {
        self.store_open.add(if open { 1 } else { -1 }, &[]);
    }
}
