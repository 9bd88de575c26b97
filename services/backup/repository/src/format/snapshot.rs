//! A snapshot: one backup of one machine.
//!
//! An encrypted object of a MessagePack map. The backup exists when this object does.
//!
//! ```text
//!   { machine, taken_at_unix_ms, tags [ … ], disks [ … ], definition, parent, consistency, stats { … }, stands_in }
//!
//!   disks        { name, shape, size_bytes, used_bytes, phase_bytes, root 32 }       shape: "disk" or "stream"
//!   phase_bytes  where on the disk the grid of an aligned chunker begins; left out where it is 0
//!   root         the id of the blob that begins the recipe, of the kind that the shape says
//!   definition   bytes for readers only, see private.rs
//!   parent       the id of a snapshot, or nil
//!   consistency  "crash", "file_system", "application" or "powered_off"
//!   stands_in    true where the repository in which it belongs could not be reached, else left out
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::private::Private;
use crate::ids::BlobId;

/// The id of a snapshot. Made by the caller, so that a backup requested twice gives one snapshot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId(Ulid);

impl SnapshotId {
    /// A new id; ids made later sort later.
    pub fn generate() -> SnapshotId {
        SnapshotId(Ulid::generate())
    }

    pub(crate) fn ulid(self) -> Ulid {
        self.0
    }
}

impl From<Ulid> for SnapshotId {
    fn from(id: Ulid) -> SnapshotId {
        SnapshotId(id)
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_string().to_lowercase())
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotId({self})")
    }
}

/// The text is not a snapshot id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a snapshot id (26 letters and digits)")]
pub struct NotASnapshotId(String);

impl FromStr for SnapshotId {
    type Err = NotASnapshotId;

    fn from_str(text: &str) -> Result<SnapshotId, NotASnapshotId> {
        Ulid::from_string(text).map(SnapshotId).map_err(|_| NotASnapshotId(text.to_owned()))
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = NotASnapshotId;

    fn try_from(text: String) -> Result<SnapshotId, NotASnapshotId> {
        text.parse()
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> String {
        id.to_string()
    }
}

/// In what state the guest's data was when the disks were frozen in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// As after a power cut.
    Crash,
    /// File systems were frozen by the guest agent.
    FileSystem,
    /// Applications were flushed, too.
    Application,
    /// The machine was shut down.
    PoweredOff,
}

/// Whether a record is a disk or a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordKind {
    /// A disk, in segments, with holes.
    Disk,
    /// Bytes in order, such as a dump or an archive.
    Stream,
}

/// One disk or stream of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskRecord {
    /// The disk's name in the machine, e.g. `vda`.
    pub name: String,
    /// Disk or stream.
    #[serde(rename = "shape")]
    pub kind: RecordKind,
    /// The virtual size; of a stream its length.
    pub size_bytes: u64,
    /// Bytes that hold data by the source's extents: allocated, whether zero or not.
    pub used_bytes: u64,
    /// The offset of the aligned chunker's grid on the disk, less than 4096.
    #[serde(rename = "phase_bytes", default, skip_serializing_if = "is_nothing")]
    pub grid_offset_bytes: u32,
    /// The root of its recipe.
    pub root: BlobId,
}

/// What a backup read and stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupStats {
    /// Bytes read from the sources.
    pub read_bytes: u64,
    /// Bytes of chunks that the repository did not have.
    pub new_bytes: u64,
    /// Bytes that these chunks and the recipes take in the store.
    pub stored_bytes: u64,
    /// Segments read and cut.
    pub segments_read: u64,
    /// Segments reused from the parent without reading.
    pub segments_reused: u64,
    /// Segments that hold only zeros.
    #[serde(rename = "segments_empty")]
    pub zero_segments: u64,
    /// Segments of which something was read although the dirty bitmap calls it unchanged, to check the map.
    #[serde(rename = "segments_audited")]
    pub unchanged_segments_checked: u64,
    /// Dirty bitmaps that were found to be wrong; their disks were read whole.
    #[serde(rename = "maps_refused")]
    pub dirty_bitmaps_rejected: u64,
}

/// The contents of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotContents {
    /// The machine that was backed up.
    pub machine: String,
    /// The point in time that the disks show, in milliseconds since 1970.
    pub taken_at_unix_ms: u64,
    /// Free text of the operator.
    pub tags: Vec<String>,
    /// Disks and streams, disks first.
    pub disks: Vec<DiskRecord>,
    /// The machine's definition, opaque here and read by readers only.
    pub definition: Private,
    /// The snapshot whose unchanged segments were reused.
    pub parent: Option<SnapshotId>,
    /// The state of the guest's data.
    pub consistency: Consistency,
    /// What was read and stored.
    pub stats: BackupStats,
    /// Whether it is a stand-in: stored here because the repository where it belongs could not be reached.
    #[serde(rename = "stands_in", default, skip_serializing_if = "is_at_home")]
    pub stored_as_failover: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_nothing(bytes: &u32) -> bool {
    *bytes == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_at_home(stored_as_failover: &bool) -> bool {
    !stored_as_failover
}

/// A backup that exists: its id and contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// The name of its object.
    pub id: SnapshotId,
    /// Everything but the id.
    pub contents: SnapshotContents,
}

impl Snapshot {
    /// The disk of that name.
    pub fn disk(&self, name: &str) -> Option<&DiskRecord> {
        self.contents.disks.iter().find(|disk| disk.name == name)
    }
}
