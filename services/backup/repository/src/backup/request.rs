//! The request for a backup, and the draft that it leaves to be sealed.

use serde::{Deserialize, Serialize};

use super::StreamSource;
use crate::format::snapshot::{Consistency, SnapshotContents, SnapshotId};
use crate::source::DiskSource;

/// What to back up.
pub struct BackupRequest {
    /// The machine's name.
    pub machine: String,
    /// The point in time that the sources show, in milliseconds since 1970.
    pub taken_at_unix_ms: u64,
    /// Free text of the operator, stored in the snapshot.
    pub tags: Vec<String>,
    /// The disks by name. They must not change while they are read.
    pub disks: Vec<(String, Box<dyn DiskSource>)>,
    /// Byte streams by name, such as dumps of databases; each is read once, after the disks.
    pub streams: Vec<(String, StreamSource)>,
    /// The machine's definition, opaque here.
    pub definition: Vec<u8>,
    /// The snapshot that the sources' dirty bitmaps refer to. Without it maps are ignored; a disk that the parent does not
    /// have, or has in another size, is read whole.
    pub parent: Option<SnapshotId>,
    /// The state of the guest's data.
    pub consistency: Consistency,
}

impl std::fmt::Debug for BackupRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "BackupRequest({}, {} disks)", self.machine, self.disks.len())
    }
}

/// A backup whose data is stored but which does not exist yet. Can be serialized and sealed later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    pub(super) contents: SnapshotContents,
    /// The lease under which it was copied; held until it is sealed.
    pub(super) lease: String,
}

impl Draft {
    /// The contents of the future snapshot.
    pub fn contents(&self) -> &SnapshotContents {
        &self.contents
    }

    /// Marks it as a stand-in: stored here because the repository where it belongs could not be reached.
    #[must_use]
    pub fn standing_in(mut self) -> Draft {
        self.contents.stored_as_failover = true;
        self
    }

    /// Adds a tag that is known only after the copy, such as how long it took.
    #[must_use]
    pub fn tagged(mut self, tag: String) -> Draft {
        self.contents.tags.push(tag);
        self
    }
}
