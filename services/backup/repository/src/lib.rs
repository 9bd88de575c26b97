//! The repository: a store of machines' disks, and the engine that fills and reads it.
//!
//! Promises, without any service running:
//! - a backup exists when its snapshot object exists, and that is one create-if-absent write; whatever dies before
//!   leaves only packs that nobody names;
//! - what is read back is what was written, byte for byte, or an error: every chunk is opened, and hashed again;
//! - the store learns nothing but sizes and times; without the secret nothing can be read or forged;
//! - where the store has Object Lock, what a snapshot needs can be deleted by nobody for as long as was asked for, and
//!   what was hidden or written over comes back;
//! - memory stays within a configured bound, every wait ends, every stage can be cancelled.
//!
//! ```text
//!   DiskSource            cut            know it?        compress, seal         32 MiB PUTs
//!   raw | NBD  ─segments─> chunker ─ids─> Index ──new──> PackWriter ───packs──> Store ── folder | S3
//!                           BLAKE3          │no                                   │
//!                              └── recipe ──┴── leaf, page, disk ── Draft ──seal──> snapshot
//!
//!   restore, verify:   snapshot ──> recipe ──> chunks by pack ──ranges──> open, check ──> image
//! ```
//!
//! It deliberately does not know of services, buses, virtual machines or schedules: what a machine's definition
//! means and when to back up are decided elsewhere.
//!
//! Where to go next: [`Repository`] is the door; [`backup`] and [`restore`] the two ways through it; [`collect`] how
//! what nobody needs any more goes; [`retention`] which snapshots are forgotten, and [`anomaly`] which look unusual,
//! both without touching anything; [`back_up_to_several`] reads once for several repositories; [`mod@format`] says what is
//! stored byte for byte; [`source`] what can be backed up; [`store`] where it lies; [`keys`] who may read it.

pub mod anomaly;
pub mod backup;
mod chunker;
pub mod collect;
mod compression;
mod diff;
pub mod format;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod index;
mod info;
mod keyring;
pub mod keys;
mod lease;
pub mod nbd_wire;
mod notes;
mod pin;
mod pipe;
mod probe;
mod progress;
mod rebuild;
mod recut;
mod repository;
pub mod restore;
pub mod retention;
mod rosters;
mod settings;
mod several;
mod snapshots;
pub mod source;
pub mod store;
mod transfer;
mod verify;
mod walk;

pub use backup::{BackupError, BackupRequest, CopyError, Draft, SealError};
pub use chunker::Chunker;
pub use collect::{CollectError, CollectReport, CollectSettings};
pub use compression::{Compression, NoCompression, ZstdLevel};
pub use diff::DiskDiff;
pub use format::private::Private;
pub use format::snapshot::{Consistency, Contents, CopyStats, DiskRecord, Shape, Snapshot, SnapshotId};
pub use format::{Damage, RepositoryId};
pub use index::IndexError;
pub use info::Info;
pub use keyring::{KeyError, KeySlot, NewKey};
pub use keys::{Identity, KdfCost, Recipient, Role, Secret, SecretError, WriteOnly};
pub use pin::PinError;
pub use progress::{Progress, ProgressReading};
pub use rebuild::RebuildReport;
pub use repository::{OpenError, Repository};
pub use restore::{
    ReadError, ReaderSettings, RestoreError, RestoreReport, RestoreRequest, RestoreTarget, SnapshotDisk,
};
pub use settings::{Audit, EngineSettings, MEMORY_BYTES_MIN};
pub use several::{Destination, back_up_to_several};
pub use snapshots::{ForgetError, ForgetPlan, Hold, HoldError, Selector, SnapshotError};
pub use source::{
    DiskAddress, DiskSource, ImageFormat, NbdAddress, NbdSettings, NbdSource, QemuImage, RawFile, References,
    SourceError,
};
pub use store::{
    Capabilities, LockMode, NotALock, ObjectLock, ReviveError, ReviveReport, S3Settings, Store, StoreError,
    StoreSettings, StoreSettingsError, StoreUrl,
};
/// Tells a long piece of work to stop; it then ends with an error that says so.
pub use tokio_util::sync::CancellationToken as Cancel;
pub use transfer::{TransferError, TransferReport};
pub use verify::{Problem, QuarantineReport, VerifyError, VerifyReport, VerifyScope};
