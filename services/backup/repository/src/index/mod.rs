//! Which pack holds which blob.
//!
//! Promises: a blob found here is in a pack whose upload was confirmed and which a shard in the store lists, so that every
//! other process finds it, too, whatever happens to this one; a lookup of what is not stored reads nothing; memory is less
//! than 1.5 bytes for each blob stored, and the number of open files bounded, whatever the repository's size; the local files can be deleted at any time, and a
//! damaged one is detected and rebuilt.
//!
//! ```text
//!   store: index/* shards + listing of packs
//!        |  refresh (reads only shards it has not seen)
//!        v
//!   cache folder: a file of sorted rows per shard ──pread of one block──┐
//!   memory:  a binary fuse filter per shard: "surely not" | "perhaps" ──┘──> Location
//! ```
//!
//! Rows are read with positioned reads and not through a memory map: a failing cache disk is then an error of one
//! lookup and not the end of the process, and each block is authenticated as it is read.
//!
//! It does not know what a backup or a snapshot is.

mod cache;
mod handles;
mod load;
mod packs;
mod rows;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use self::rows::ShardRows;
use crate::damage::Damage;
use crate::format::pack::{Entry, PackEncryptionInfo};
use crate::ids::{BlobId, PackId};
use crate::store::StoreError;

pub(crate) use self::cache::Cache;
pub(crate) use self::load::{put_shard, read_shard, refresh};
pub(crate) use self::packs::{ListedPack, list_packs};

/// A shard is written when it has this many rows, about 11 MB: few objects to load, little to repeat after a
/// crash.
pub(crate) const SHARD_ROWS: usize = 256 * 1024;

/// The location of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) pack: PackEncryptionInfo,
    pub(crate) slot: u32,
    pub(crate) offset: u32,
    pub(crate) entry: Entry,
}

/// A shard, as far as it is known without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShardOutline<'a> {
    /// The name of its object.
    pub(crate) name: &'a str,
    pub(crate) rows: u32,
    /// Whether it lists packs that are gone.
    pub(crate) lists_deleted_packs: bool,
}

/// The index of one repository.
#[derive(Clone, Default)]
pub(crate) struct Index {
    shards: Vec<Arc<ShardRows>>,
    /// Packs that shards list and the store does not have.
    gone: HashSet<PackId>,
}

/// The index could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The store failed.
    #[error("could not load the index")]
    Store(#[from] StoreError),
    /// A shard or list is damaged.
    #[error("could not read {name} of the index")]
    Damaged {
        /// The object.
        name: String,
        /// What is wrong with it.
        #[source]
        source: Damage,
    },
    /// Shards kept being merged while they were read.
    #[error("the index kept changing while it was read")]
    KeptChanging,
    /// The local file of a shard could not be used.
    #[error("could not {attempt} the index file {path}")]
    Cache {
        /// What was attempted.
        attempt: &'static str,
        /// The file.
        path: PathBuf,
        /// What the file system said.
        #[source]
        source: std::io::Error,
    },
    /// The local file of a shard is not as it was written.
    #[error("the index file {path} is damaged: remove it and try again")]
    CacheDamaged {
        /// The file.
        path: PathBuf,
    },
}

impl Index {
    /// Calls `each` with every location of a blob, until it returns [`Enough::Yes`].
    fn visit(&self, id: &BlobId, each: &mut dyn FnMut(Location) -> Enough) -> Result<(), IndexError> {
        for shard in &self.shards {
            let mut enough = Enough::No;
            shard.visit(id, &mut |place| {
                if enough == Enough::No && !self.gone.contains(&place.pack.id) {
                    enough = each(place);
                }
            })?;
            if enough == Enough::Yes {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A location of a blob.
    pub(crate) fn find(&self, id: &BlobId) -> Result<Option<Location>, IndexError> {
        let mut found = None;
        self.visit(id, &mut |place| {
            found = Some(place);
            Enough::Yes
        })?;
        Ok(found)
    }

    /// Every location of a blob; one that several shards list is returned several times.
    pub(crate) fn find_all(&self, id: &BlobId) -> Result<Vec<Location>, IndexError> {
        let mut found = Vec::new();
        self.visit(id, &mut |place| {
            found.push(place);
            Enough::No
        })?;
        Ok(found)
    }

    /// Whether a blob is stored in a pack that is not to be deleted.
    pub(crate) fn contains_outside(
        &self,
        condemned: &HashSet<PackId>,
        id: &BlobId,
    ) -> Result<bool, IndexError> {
        let mut contains = false;
        self.visit(id, &mut |place| {
            contains = !condemned.contains(&place.pack.id);
            if contains { Enough::Yes } else { Enough::No }
        })?;
        Ok(contains)
    }

    /// All blobs of one pack. Reads every row: for repairs only.
    pub(crate) fn blobs_in(&self, pack: PackId) -> Result<Vec<Location>, IndexError> {
        let mut found = Vec::new();
        self.each(&mut |place| {
            if place.pack.id == pack {
                found.push(place);
            }
        })?;
        Ok(found)
    }

    /// Calls `each` with every row of packs that exist.
    pub(crate) fn each(&self, each: &mut dyn FnMut(Location)) -> Result<(), IndexError> {
        for shard in &self.shards {
            shard.each(&mut |place| {
                if !self.gone.contains(&place.pack.id) {
                    each(place);
                }
            })?;
        }
        Ok(())
    }

    /// Rows of all shards together.
    pub(crate) fn rows(&self) -> u64 {
        self.shards.iter().map(|shard| u64::from(shard.len())).sum()
    }

    /// Bytes of memory that the shards take.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.memory_bytes()).sum()
    }

    /// The heads of all packs that are listed and exist.
    pub(crate) fn packs(&self) -> Vec<PackEncryptionInfo> {
        let named = self.shards.iter().flat_map(|shard| shard.packs());
        named.filter(|head| !self.gone.contains(&head.id)).copied().collect()
    }

    /// Every shard, without reading it.
    pub(crate) fn outlines(&self) -> impl Iterator<Item = ShardOutline<'_>> {
        self.shards.iter().map(|shard| ShardOutline {
            name: shard.name(),
            rows: shard.len(),
            lists_deleted_packs: shard.packs().any(|head| self.gone.contains(&head.id)),
        })
    }

    /// Whether shards list a pack that is gone.
    pub(crate) fn is_gone(&self, pack: &PackId) -> bool {
        self.gone.contains(pack)
    }

    /// Adds a shard that was written just now.
    fn adopt(&mut self, shard: Arc<ShardRows>) {
        self.shards.push(shard);
    }
}

/// Whether a visit goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Enough {
    Yes,
    No,
}

/// Reads a file of rows that a fuzzer made, under fixed public keys.
#[cfg(any(test, fuzzing))]
pub(crate) fn read_rows(file: std::fs::File) {
    let keys = crate::keys::Keys::known();
    let file = handles::Handles::default().named(file, PathBuf::new());
    if let Ok(Some(rows)) = file.and_then(|file| ShardRows::open(&keys, "index/a", file)) {
        let mut ids = Vec::new();
        // Whatever is wrong is an error.
        let _ = rows.each(&mut |place| ids.push(place.entry.id));
        for id in ids {
            let _ = rows.visit(&id, &mut |_| {});
        }
    }
}

/// A file of rows that names one blob.
#[cfg(test)]
pub(crate) fn rows_of_one(keys: &crate::keys::Keys) -> Vec<u8> {
    rows::encode(keys, "index/a", &[tests::directory(&[BlobId::from([7; 32])])]).concat()
}

#[cfg(test)]
mod tests;
