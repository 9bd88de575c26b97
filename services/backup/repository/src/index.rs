//! Which pack holds which blob, in memory.
//!
//! Promises: a blob found here lies in a pack whose upload was confirmed and which the store listed; it can be
//! thrown away and loaded again at any time.
//!
//! ```text
//!   store: index/* shards + listing of packs
//!        |  refresh (reads only shards it has not seen)
//!        v
//!   Index { rows: id -> (pack, slot, offset, lengths), packs }
//! ```
//!
//! Rows are 52 bytes; shards in a local cache with a filter in memory are the next step of this module, behind
//! the same few functions. It does not know what a backup or a snapshot is.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::RwLock;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use ulid::Ulid;

use crate::format::blob::{BlobId, BlobKind};
use crate::format::pack::{Directory, Entry, PackId, PackKind};
use crate::format::{Damage, sealed, shard};
use crate::keys::Keys;
use crate::store::{Store, StoreError, names};

/// A shard is written when it has this many rows, about 11 MB: few objects to load, little to repeat after a
/// crash.
pub(crate) const SHARD_ROWS: usize = 256 * 1024;
/// Shards and lists read at the same time.
const READS_IN_FLIGHT: usize = 8;
/// How often loading begins anew when a shard vanishes while it is read, because a collection merged it.
const LOADS_MAX: usize = 5;

/// Where a blob lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) pack: PackId,
    pub(crate) slot: u32,
    pub(crate) offset: u32,
    pub(crate) entry: Entry,
}

#[derive(Clone, Copy)]
struct Row {
    pack: u32,
    slot: u32,
    offset: u32,
    sealed_bytes: u32,
    raw_bytes: u32,
    kind: BlobKind,
}

/// Ids are uniformly random already: their first eight bytes are hash enough.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(word) = bytes.first_chunk() {
            self.0 ^= u64::from_le_bytes(*word);
        }
    }
}

type IdMap<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// The index of one repository.
#[derive(Default)]
pub(crate) struct Index {
    rows: IdMap<BlobId, Row>,
    packs: Vec<PackId>,
    numbers: HashMap<PackId, u32>,
    shards: HashSet<String>,
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
    /// Shards kept vanishing while they were read.
    #[error("the index kept changing while it was read")]
    Restless,
}

impl Index {
    /// Where a blob lies.
    pub(crate) fn find(&self, id: &BlobId) -> Option<Location> {
        let row = self.rows.get(id)?;
        Some(Location {
            pack: self.packs[row.pack as usize],
            slot: row.slot,
            offset: row.offset,
            entry: Entry {
                id: *id,
                kind: row.kind,
                sealed_bytes: row.sealed_bytes,
                raw_bytes: row.raw_bytes,
            },
        })
    }

    /// Whether a blob is stored.
    pub(crate) fn contains(&self, id: &BlobId) -> bool {
        self.rows.contains_key(id)
    }

    /// Whether a blob is stored in a pack that is not to be deleted.
    pub(crate) fn contains_outside(&self, condemned: &HashSet<PackId>, id: &BlobId) -> bool {
        self.rows.get(id).is_some_and(|row| !condemned.contains(&self.packs[row.pack as usize]))
    }

    /// All blobs that are read from one pack. Looks at every row: for damage, not for work.
    pub(crate) fn blobs_in(&self, pack: PackId) -> Vec<Location> {
        self.rows.keys().filter_map(|id| self.find(id)).filter(|place| place.pack == pack).collect()
    }

    /// Adds what a pack holds. The pack must be in the store.
    pub(crate) fn add(&mut self, directory: &Directory) {
        let number = *self.numbers.entry(directory.pack).or_insert_with(|| {
            self.packs.push(directory.pack);
            (self.packs.len() - 1) as u32
        });
        for (slot, offset, entry) in directory.placed() {
            self.rows.entry(entry.id).or_insert(Row {
                pack: number,
                slot,
                offset,
                sealed_bytes: entry.sealed_bytes,
                raw_bytes: entry.raw_bytes,
                kind: entry.kind,
            });
        }
    }
}

/// Loads into `index` everything that the store lists and that is not known yet. When packs have gone, the whole
/// index is built anew.
pub(crate) async fn refresh(index: &RwLock<Index>, store: &Store, keys: &Keys) -> Result<(), IndexError> {
    for _ in 0..LOADS_MAX {
        match refresh_once(index, store, keys).await {
            // A shard was merged into another between listing and reading.
            Err(IndexError::Store(StoreError::NotFound { .. })) => {}
            outcome => return outcome,
        }
    }
    Err(IndexError::Restless)
}

async fn refresh_once(index: &RwLock<Index>, store: &Store, keys: &Keys) -> Result<(), IndexError> {
    const HELD: &str = "nobody panics while holding the index";
    let packs_before = index.read().expect(HELD).packs.clone();
    // Packs are listed after the shards: a pack is written before its shard, so none is missed.
    let shards = store.list(&names::folder(names::INDEX)).await?;
    let present = list_packs(store).await?;
    let rebuild = packs_before.iter().any(|pack| !present.contains_key(pack));
    let rebuilt = RwLock::new(Index::default());
    let target = if rebuild { &rebuilt } else { index };
    let unread: Vec<_> = {
        let known = target.read().expect(HELD);
        shards.into_iter().map(|s| s.path).filter(|path| !known.shards.contains(path.as_ref())).collect()
    };
    let mut reads = futures::stream::iter(unread.into_iter().map(|path| read_shard(store, keys, path)))
        .buffer_unordered(READS_IN_FLIGHT);
    while let Some((path, directories)) = reads.try_next().await? {
        let mut target = target.write().expect(HELD);
        for directory in directories.iter().filter(|directory| present.contains_key(&directory.pack)) {
            target.add(directory);
        }
        target.shards.insert(path.to_string());
    }
    if rebuild {
        *index.write().expect(HELD) = rebuilt.into_inner().expect(HELD);
    }
    Ok(())
}

/// An index in which a blob is found in a condemned pack only when it is in no other.
pub(crate) struct CollectorsView {
    pub(crate) index: Index,
    /// What the condemned packs hold.
    pub(crate) condemned: Vec<Directory>,
    /// Every pack in the store.
    pub(crate) packs: HashMap<PackId, ListedPack>,
}

/// Reads the whole index anew, as a collection needs it.
pub(crate) async fn collectors_view(
    store: &Store,
    keys: &Keys,
    condemned: &HashSet<PackId>,
) -> Result<CollectorsView, IndexError> {
    for _ in 0..LOADS_MAX {
        match collectors_view_once(store, keys, condemned).await {
            // A shard was merged into another between listing and reading.
            Err(IndexError::Store(StoreError::NotFound { .. })) => {}
            outcome => return outcome,
        }
    }
    Err(IndexError::Restless)
}

async fn collectors_view_once(
    store: &Store,
    keys: &Keys,
    condemned: &HashSet<PackId>,
) -> Result<CollectorsView, IndexError> {
    let shards = store.list(&names::folder(names::INDEX)).await?;
    let packs = list_packs(store).await?;
    let mut view = CollectorsView { index: Index::default(), condemned: Vec::new(), packs };
    let mut reads =
        futures::stream::iter(shards.into_iter().map(|listed| read_shard(store, keys, listed.path)))
            .buffer_unordered(READS_IN_FLIGHT);
    while let Some((_, directories)) = reads.try_next().await? {
        for directory in directories.into_iter().filter(|d| view.packs.contains_key(&d.pack)) {
            if condemned.contains(&directory.pack) {
                view.condemned.push(directory);
            } else {
                view.index.add(&directory);
            }
        }
    }
    for directory in &view.condemned {
        view.index.add(directory);
    }
    Ok(view)
}

pub(crate) async fn read_shard(
    store: &Store,
    keys: &Keys,
    path: Path,
) -> Result<(Path, Vec<Directory>), IndexError> {
    let object = store.get(&path).await?;
    let directories = sealed::open(keys, &path, "index shard", &object)
        .and_then(|text| shard::decode(&text))
        .map_err(|source| IndexError::Damaged { name: path.to_string(), source })?;
    Ok((path, directories))
}

/// Writes a shard that names some stored packs.
pub(crate) async fn put_shard(
    store: &Store,
    keys: &Keys,
    directories: &[Directory],
) -> Result<(), StoreError> {
    let name = names::entry(names::INDEX, Ulid::generate());
    let object = sealed::seal(keys, &name, shard::encode(directories));
    store.put(&name, Bytes::from(object)).await
}

/// Every pack that the store lists, with its kind and length.
pub(crate) async fn list_packs(store: &Store) -> Result<HashMap<PackId, ListedPack>, StoreError> {
    let mut packs = HashMap::new();
    for kind in PackKind::ALL {
        for listed in store.list(&names::packs(kind)).await? {
            if let Some(id) = names::pack_id(&listed.path) {
                let (bytes, written_unix_ms) = (listed.bytes, listed.written_unix_ms);
                packs.insert(id, ListedPack { kind, bytes, written_unix_ms });
            }
        }
    }
    Ok(packs)
}

/// A pack as the store lists it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ListedPack {
    pub(crate) kind: PackKind,
    pub(crate) bytes: u64,
    /// When it was written, by the store's clock.
    pub(crate) written_unix_ms: i64,
}
