//! The facts about a backup that are compared.

use super::Ratio;

/// One disk of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The disk's name in the machine, e.g. `vda`.
    pub name: String,
    /// The virtual size.
    pub size_bytes: u64,
}

/// The facts about one backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// When it was taken, in milliseconds since 1970.
    pub taken_at_unix_ms: u64,
    /// Every disk of the backup.
    pub disks: Vec<Disk>,
    /// Bytes of all disks that are not holes.
    pub used_bytes: u64,
    /// Bytes read from the sources.
    pub read_bytes: u64,
    /// Bytes, before compression, that the repository did not have.
    pub new_bytes: u64,
    /// What these take in the store.
    pub stored_bytes: u64,
}

impl Backup {
    /// How much of what is used is new; `None` when nothing is used.
    pub(super) fn changed(&self) -> Option<Ratio> {
        Ratio::of(self.new_bytes, self.used_bytes)
    }

    /// To how much of itself the new data was compressed; `None` when there was none.
    pub(super) fn stored(&self) -> Option<Ratio> {
        Ratio::of(self.stored_bytes, self.new_bytes)
    }

    pub(super) fn disk(&self, name: &str) -> Option<&Disk> {
        self.disks.iter().find(|disk| disk.name == name)
    }
}
