//! The metrics of the service; all names are here.

use std::time::Duration;

use contract::backup::{AppliedRetention, Backup, CollectedRepository, VerifiedBackup, VerifiedRepository};
use telemetry::{Counter, Histogram, KeyValue, UpDownCounter, meter};

/// Backups that ended, by outcome (`sealed`, `undone`).
pub const BACKUPS: &str = "loam_backup_backups_total";
/// How long copying took, of backups that were sealed.
pub const COPY_DURATION: &str = "loam_backup_copy_duration_seconds";
/// Bytes read from the disks of VMs.
pub const READ: &str = "loam_backup_read_bytes_total";
/// Bytes that the store did not hold yet, before compression.
pub const NEW: &str = "loam_backup_new_bytes_total";
/// Bytes written to the store.
pub const STORED: &str = "loam_backup_stored_bytes_total";
/// Restores that ended, by outcome (`done`, `undone`).
pub const RESTORES: &str = "loam_backup_restores_total";
/// Verifications that ended, by scope (`backup`, `repository`) and outcome (`sound`, `damaged`).
pub const VERIFICATIONS: &str = "loam_backup_verifications_total";
/// Bytes that verifications read from the store, by scope.
pub const VERIFIED_BYTES: &str = "loam_backup_verified_bytes_total";
/// Packs that verifications of the repository read whole.
pub const VERIFIED_PACKS: &str = "loam_backup_verified_packs_total";
/// Collections that ended, by outcome (`done`, `undone`).
pub const COLLECTIONS: &str = "loam_backup_collections_total";
/// Bytes of packs that collections deleted.
pub const COLLECTED_BYTES: &str = "loam_backup_collected_bytes_total";
/// Packs that collections deleted.
pub const COLLECTED_PACKS: &str = "loam_backup_collected_packs_total";
/// Retention runs that ended, by outcome (`done`, `undone`).
pub const RETENTION_RUNS: &str = "loam_backup_retention_runs_total";
/// Backups that retention runs judged, by verdict (`kept`, `forgotten`).
pub const RETENTION_BACKUPS: &str = "loam_backup_retention_backups_total";
/// 1 while the repository is open.
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
    verified_bytes: Counter<u64>,
    verified_packs: Counter<u64>,
    collections: Counter<u64>,
    collected_bytes: Counter<u64>,
    collected_packs: Counter<u64>,
    retention_runs: Counter<u64>,
    retention_backups: Counter<u64>,
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
            read: counter(READ, "bytes read from the disks of VMs"),
            new: counter(NEW, "bytes new to the store, before compression"),
            stored: counter(STORED, "bytes written to the store"),
            restores: counter(RESTORES, "restores that ended, by outcome"),
            verifications: counter(VERIFICATIONS, "verifications that ended, by scope and outcome"),
            verified_bytes: counter(VERIFIED_BYTES, "bytes that verifications read, by scope"),
            verified_packs: counter(VERIFIED_PACKS, "packs that verifications of the repository read whole"),
            collections: counter(COLLECTIONS, "collections that ended, by outcome"),
            collected_bytes: counter(COLLECTED_BYTES, "bytes of packs that collections deleted"),
            collected_packs: counter(COLLECTED_PACKS, "packs that collections deleted"),
            retention_runs: counter(RETENTION_RUNS, "retention runs that ended, by outcome"),
            retention_backups: counter(RETENTION_BACKUPS, "backups that retention runs judged, by verdict"),
            store_open: meter
                .i64_up_down_counter(STORE_OPEN)
                .with_description("1 while the repository is open")
                .build(),
        }
    }
}

fn outcome(outcome: &'static str) -> KeyValue {
    KeyValue::new("outcome", outcome)
}

fn scope(scope: &'static str) -> KeyValue {
    KeyValue::new("scope", scope)
}

impl Metrics {
    /// A backup was sealed.
    pub fn backup_sealed(&self, backup: &Backup) {
        self.backups.add(1, &[outcome("sealed")]);
        self.copy_duration.record(Duration::from_millis(backup.took_ms).as_secs_f64(), &[]);
        self.read.add(backup.bytes_read.0, &[]);
        self.new.add(backup.bytes_new.0, &[]);
        self.stored.add(backup.bytes_stored.0, &[]);
    }

    /// A backup was undone.
    pub fn backup_undone(&self) {
        self.backups.add(1, &[outcome("undone")]);
    }

    /// A VM was restored.
    pub fn restored(&self) {
        self.restores.add(1, &[outcome("done")]);
    }

    /// A restore was undone.
    pub fn restore_undone(&self) {
        self.restores.add(1, &[outcome("undone")]);
    }

    /// A backup was verified, and nothing of it is damaged.
    pub fn backup_verified(&self, verified: &VerifiedBackup) {
        self.verifications.add(1, &[scope("backup"), outcome("sound")]);
        self.verified_bytes.add(verified.bytes_read.0, &[scope("backup")]);
    }

    /// The repository was verified, and nothing of it is damaged.
    pub fn repository_verified(&self, verified: &VerifiedRepository) {
        self.verifications.add(1, &[scope("repository"), outcome("sound")]);
        self.verified_bytes.add(verified.bytes_read.0, &[scope("repository")]);
        self.verified_packs.add(verified.packs, &[]);
    }

    /// A verification found damage, by its scope: `backup` or `repository`.
    pub fn damage_found(&self, verified: &'static str) {
        self.verifications.add(1, &[scope(verified), outcome("damaged")]);
    }

    /// A collection ended.
    pub fn collected(&self, collected: &CollectedRepository) {
        self.collections.add(1, &[outcome("done")]);
        self.collected_bytes.add(collected.bytes_deleted.0, &[]);
        self.collected_packs.add(collected.packs_deleted, &[]);
    }

    /// A collection was undone.
    pub fn collection_undone(&self) {
        self.collections.add(1, &[outcome("undone")]);
    }

    /// A retention run ended.
    pub fn retention_applied(&self, applied: &AppliedRetention) {
        self.retention_runs.add(1, &[outcome("done")]);
        let forgotten = applied.forgotten.len() as u64;
        self.retention_backups.add(forgotten, &[KeyValue::new("verdict", "forgotten")]);
        self.retention_backups.add(applied.kept_total, &[KeyValue::new("verdict", "kept")]);
    }

    /// A retention run was undone.
    pub fn retention_undone(&self) {
        self.retention_runs.add(1, &[outcome("undone")]);
    }

    /// The repository was opened or lost.
    pub fn store_open(&self, open: bool) {
        self.store_open.add(if open { 1 } else { -1 }, &[]);
    }
}
