//! The repository: a store of machines' disks, and the engine that fills and reads it.
//!
//! Promises, without any service running:
//! - a backup exists when its snapshot object exists, and that is one create-if-absent write; a process that dies before
//!   leaves only packs that no snapshot refers to;
//! - what is read back is what was written, byte for byte, or an error: every chunk is decrypted and hashed again;
//! - the store sees nothing but sizes and times; without the secret nothing can be read or forged;
//! - where the store has Object Lock, what a snapshot needs cannot be deleted for the configured time, and
//!   objects that were hidden or overwritten can be undeleted;
//! - memory stays within a configured bound, every wait ends, every stage can be cancelled.
//!
//! ```text
//!   DiskSource            cut            stored?         compress, encrypt      32 MiB PUTs
//!   raw | NBD  ─segments─> chunker ─ids─> Index ──new──> PackWriter ───packs──> Store ── folder | S3
//!                           BLAKE3          │no                                   │
//!                              └── recipe ──┴── leaf, page, disk ── Draft ──seal──> snapshot
//!
//!   restore, verify:   snapshot ──> recipe ──> chunks by pack ──ranges──> decrypt, check ──> image
//! ```
//!
//! It deliberately does not know of services, buses, virtual machines or schedules: what a machine's definition
//! means and when to back up are decided elsewhere.
//!
//! Where to go next: [`Repository`] is the entry point; [`backup`] and [`restore`] write and read it; [`collect`] deletes
//! what no snapshot needs (prune); [`retention`] plans which snapshots to forget, and [`anomaly`] finds unusual ones, both
//! without touching anything; [`back_up_to_several`] reads once for several repositories; [`mod@format`] defines what is
//! stored, byte for byte; [`source`] what can be backed up; [`store`] where objects are kept; [`keys`] who can read them.

pub mod anomaly;
pub mod backup;
mod chunker;
pub mod collect;
mod compression;
mod cursor;
mod damage;
mod diff;
pub mod format;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod ids;
mod index;
mod info;
mod keyring;
pub mod keys;
mod lease;
pub mod nbd_wire;
mod object_times;
mod open;
mod open_error;
mod pin;
mod pipe;
mod probe;
mod progress;
mod random;
mod rebuild;
mod recut;
mod repository;
pub mod restore;
pub mod retention;
mod rosters;
mod settings;
mod several;
mod shared;
mod snapshots;
pub mod source;
pub mod store;
mod transfer;
mod verify;
mod walk;

pub use backup::{BackupError, BackupRequest, CopyDisksError, Draft, SealBackupError};
pub use chunker::Chunker;
pub use collect::{CollectError, CollectReport, CollectSettings};
pub use compression::{Compression, ParseCompressionError, ZstdLevel};
pub use damage::{Damage, WriteOnly};
pub use diff::DiskDiff;
pub use format::private::Private;
pub use format::snapshot::{
    BackupStats, Consistency, DiskRecord, RecordKind, Snapshot, SnapshotContents, SnapshotId,
};
pub use ids::{BlobId, RepositoryId};
pub use index::IndexError;
pub use info::Info;
pub use keyring::{KeyError, KeySlot, NewKey};
pub use keys::{Identity, KdfCost, Recipient, Role, Secret, SecretError};
pub use open_error::OpenError;
pub use pin::KeyPinError;
pub use progress::{Progress, ProgressCounters};
pub use rebuild::RebuildIndexReport;
pub use repository::Repository;
pub use restore::{
    ReadError, ReaderSettings, RestoreError, RestoreReport, RestoreRequest, RestoreTarget, SnapshotDisk,
};
pub use settings::{DirtyBitmapCheck, EngineSettings, MEMORY_BYTES_MIN};
pub use several::{Destination, back_up_to_several};
pub use snapshots::{ForgetError, ForgetPlan, Hold, HoldError, Selector, SnapshotError};
pub use source::{
    DiskAddress, DiskSource, ImageFormat, ImageReferencePolicy, NbdAddress, NbdExportSettings, NbdSource,
    QemuImage, RawFile, SourceError,
};
pub use store::{
    Capabilities, InvalidLockDays, LockMode, ObjectLock, S3Settings, Store, StoreError, StoreSettings,
    StoreSettingsError, StoreUrl, UndeleteError, UndeleteReport,
};
/// Stops a long operation; it then ends with its `Cancelled` error.
pub use tokio_util::sync::CancellationToken as Cancel;
pub use transfer::{CopySnapshotsError, CopySnapshotsReport};
pub use verify::{Problem, QuarantineReport, VerifyError, VerifyReport, VerifyScope};
