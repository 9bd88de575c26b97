//! A local cache of what recipes need, so that a collection reads each piece once and not at every run.
//!
//! ```text
//!   FOLDER/<repository id>/needs:   "LOAMNEED" | version 4 | blocks
//!
//!   block   pack 16 | text bytes 4 | length 4 | text, compressed by zstd | MAC 16 of all before     text: see needs.rs
//!
//!   run:   needs ──pread of a pack's block──> OutgoingReferences ─┐                             ┌─> needs, beside and
//!          what was read and is new ──> nameless file ────────────┴─ packs visited in this run ─┘   renamed
//! ```
//!
//! It can be deleted: what cannot be read, is damaged or comes from another repository counts as not cached. A run that
//! succeeds keeps entries of the packs that it visited and of no others, so the size of the file is bounded. Without a
//! folder, entries are in a nameless file from the first half of a collection to the second.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use super::needs::OutgoingReferences;
use crate::cursor::Cursor;
use crate::ids::PackId;
use crate::index::Cache;
use crate::keys::Keys;

const FILE: &str = "needs";
const MAGIC: &[u8; 8] = b"LOAMNEED";
const VERSION: u32 = 1;
const FILE_HEADER_BYTES: usize = 8 + 4;
const HEADER_BYTES: usize = 16 + 4 + 4;
const MAC_BYTES: usize = 16;
/// The needs of one pack are no longer than this: those of a pack of leaves take some ten MB.
const TEXT_BYTES_MAX: usize = 256 * 1024 * 1024;
const ZSTD_LEVEL: i32 = 1;

/// The position of a block in the file.
#[derive(Clone, Copy)]
struct Block {
    at: u64,
    bytes: usize,
}

/// A file of blocks.
struct Blocks {
    file: File,
    end: u64,
    of: HashMap<PackId, Vec<Block>>,
}

/// What earlier runs cached.
pub(super) struct PackReferencesCache {
    mac_key: blake3::Hasher,
    folder: Option<PathBuf>,
    kept: Option<Blocks>,
}

/// What one run adds.
pub(super) struct PackReferencesCacheUpdate {
    needs_cache: Arc<PackReferencesCache>,
    new: Option<Blocks>,
    met: HashSet<PackId>,
    /// The disk is full, or cannot be written.
    is_full: bool,
}

impl Blocks {
    /// An empty file of blocks.
    fn begin(file: File) -> io::Result<Blocks> {
        file.write_all_at(&[MAGIC.as_slice(), &VERSION.to_le_bytes()].concat(), 0)?;
        Ok(Blocks { file, end: FILE_HEADER_BYTES as u64, of: HashMap::new() })
    }

    /// Finds the blocks of a file, as far as there are any. Whether they are authentic is seen when they are read.
    fn find(file: File) -> io::Result<Option<Blocks>> {
        let bytes = file.metadata()?.len();
        let mut begin = [0; FILE_HEADER_BYTES];
        if bytes < FILE_HEADER_BYTES as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut begin, 0)?;
        if begin != *[MAGIC.as_slice(), &VERSION.to_le_bytes()].concat() {
            return Ok(None);
        }
        let mut blocks = Blocks { file, end: FILE_HEADER_BYTES as u64, of: HashMap::new() };
        let mut header = [0; HEADER_BYTES];
        while bytes - blocks.end >= (HEADER_BYTES + MAC_BYTES) as u64 {
            blocks.file.read_exact_at(&mut header, blocks.end)?;
            let Some((pack, _, length)) = fields(&header) else { break };
            let block = Block { at: blocks.end, bytes: HEADER_BYTES + length + MAC_BYTES };
            if block.bytes as u64 > bytes - blocks.end {
                break;
            }
            blocks.of.entry(pack).or_default().push(block);
            blocks.end += block.bytes as u64;
        }
        Ok(Some(blocks))
    }

    fn append(&mut self, pack: PackId, block: &[u8]) -> io::Result<()> {
        self.file.write_all_at(block, self.end)?;
        self.of.entry(pack).or_default().push(Block { at: self.end, bytes: block.len() });
        self.end += block.len() as u64;
        Ok(())
    }

    /// The authentic blocks of a pack, earlier ones first.
    fn of<'a>(&'a self, mac_key: &'a blake3::Hasher, pack: &PackId) -> impl Iterator<Item = Vec<u8>> + 'a {
        self.of.get(pack).into_iter().flatten().filter_map(move |block| {
            let mut bytes = vec![0; block.bytes];
            self.file.read_exact_at(&mut bytes, block.at).ok()?;
            let (text, mac) = bytes.split_last_chunk::<MAC_BYTES>()?;
            (mac_of(mac_key, text) == *mac).then_some(bytes)
        })
    }

    /// All that the blocks of a pack say.
    fn notes(&self, mac_key: &blake3::Hasher, pack: &PackId) -> OutgoingReferences {
        let mut all = OutgoingReferences::default();
        for notes in self.of(mac_key, pack).filter_map(|block| needs_in(pack, &block)) {
            if all.is_empty() {
                all = notes;
            } else {
                all.add_all(&notes);
            }
        }
        all
    }
}

/// Pack, bytes of the text, and bytes of it compressed.
fn fields(header: &[u8]) -> Option<(PackId, usize, usize)> {
    let mut cursor = Cursor::new(header, "file of needs");
    let pack = PackId::from(cursor.array().ok()?);
    Some((pack, cursor.u32().ok()? as usize, cursor.u32().ok()? as usize))
}

fn mac_of(mac_key: &blake3::Hasher, block: &[u8]) -> [u8; MAC_BYTES] {
    let mac = mac_key.clone().update(block).finalize();
    *mac.as_bytes().first_chunk().expect("a hash is longer than its beginning")
}

/// The needs in an authentic block.
fn needs_in(pack: &PackId, block: &[u8]) -> Option<OutgoingReferences> {
    let (header, rest) = block.split_first_chunk::<HEADER_BYTES>()?;
    let (of, text_bytes, length) = fields(header)?;
    if of != *pack || text_bytes > TEXT_BYTES_MAX {
        return None;
    }
    let text = zstd::bulk::decompress(rest.get(..length)?, text_bytes).ok()?;
    OutgoingReferences::decode(&text).ok()
}

/// The block of some needs; `None` where they are too long.
fn block_of(mac_key: &blake3::Hasher, pack: &PackId, notes: &OutgoingReferences) -> Option<Vec<u8>> {
    let text = notes.encode();
    if text.len() > TEXT_BYTES_MAX {
        return None;
    }
    let packed = zstd::bulk::compress(&text, ZSTD_LEVEL).ok()?;
    let lengths = [text.len(), packed.len()].map(|length| (length as u32).to_le_bytes());
    let mut block = [pack.as_bytes().as_slice(), lengths.as_flattened(), &packed].concat();
    let mac = mac_of(mac_key, &block);
    block.extend_from_slice(&mac);
    Some(block)
}

impl PackReferencesCache {
    /// The cache in the folder; empty, where it cannot be read.
    pub(super) fn open(cache: &Cache, keys: &Keys) -> PackReferencesCache {
        let mut mac_key = blake3::Hasher::new_keyed(&keys.cache_key());
        mac_key.update(FILE.as_bytes());
        let folder = cache.folder().map(Path::to_owned);
        let file = folder.as_ref().and_then(|folder| File::open(folder.join(FILE)).ok());
        let kept = file.and_then(|file| Blocks::find(file).ok().flatten());
        PackReferencesCache { mac_key, folder, kept }
    }

    /// The cached needs of a pack.
    pub(super) fn notes(&self, pack: &PackId) -> OutgoingReferences {
        self.kept.as_ref().map(|kept| kept.notes(&self.mac_key, pack)).unwrap_or_default()
    }

    fn nameless(&self) -> io::Result<File> {
        match &self.folder {
            Some(folder) => tempfile::tempfile_in(folder),
            None => tempfile::tempfile(),
        }
    }
}

impl PackReferencesCacheUpdate {
    pub(super) fn new(needs_cache: Arc<PackReferencesCache>) -> PackReferencesCacheUpdate {
        PackReferencesCacheUpdate { needs_cache, new: None, met: HashSet::new(), is_full: false }
    }

    /// This run needs something of a pack: its entries are kept. True at the first visit.
    pub(super) fn visit(&mut self, pack: PackId) -> bool {
        self.met.insert(pack)
    }

    /// Adds needs of a pack.
    pub(super) fn add(&mut self, pack: PackId, notes: &OutgoingReferences) {
        if self.is_full || notes.is_empty() {
            return;
        }
        let Some(block) = block_of(&self.needs_cache.mac_key, &pack, notes) else { return };
        if let Err(error) = self.append(pack, &block) {
            warn!(%error, "recipes cannot be cached and will be read again");
            self.is_full = true;
        }
    }

    fn append(&mut self, pack: PackId, block: &[u8]) -> io::Result<()> {
        let new = match &mut self.new {
            Some(new) => new,
            none => none.insert(Blocks::begin(self.needs_cache.nameless()?)?),
        };
        new.append(pack, block)
    }

    /// Keeps new and old entries of the packs that this run visited; only for a run that succeeded.
    pub(super) fn keep(self) -> Arc<PackReferencesCache> {
        let is_met = |kept: &Blocks| kept.of.keys().all(|pack| self.met.contains(pack));
        let is_same = self.new.is_none() && self.needs_cache.kept.as_ref().is_none_or(is_met);
        if self.is_full || is_same {
            return self.needs_cache;
        }
        match self.write() {
            Ok(kept) => {
                let PackReferencesCache { mac_key, folder, .. } = &*self.needs_cache;
                Arc::new(PackReferencesCache {
                    mac_key: mac_key.clone(),
                    folder: folder.clone(),
                    kept: Some(kept),
                })
            }
            Err(error) => {
                warn!(%error, "the cache of recipes could not be written and they will be read again");
                self.needs_cache
            }
        }
    }

    /// Writes a file beside the old one, and gives it the name when it is whole.
    fn write(&self) -> io::Result<Blocks> {
        let Some(folder) = &self.needs_cache.folder else {
            let mut blocks = Blocks::begin(self.needs_cache.nameless()?)?;
            self.write_into(&mut blocks)?;
            return Ok(blocks);
        };
        let prefix = format!("{FILE}.");
        let beside = tempfile::Builder::new().prefix(&prefix).suffix(".new").tempfile_in(folder)?;
        let (file, path) = beside.into_parts();
        let mut blocks = Blocks::begin(file)?;
        self.write_into(&mut blocks)?;
        path.persist(folder.join(FILE)).map_err(|error| error.error)?;
        Ok(blocks)
    }

    fn write_into(&self, blocks: &mut Blocks) -> io::Result<()> {
        let mac_key = &self.needs_cache.mac_key;
        for pack in &self.met {
            let is_new = self.new.as_ref().is_some_and(|new| new.of.contains_key(pack));
            if is_new {
                let mut notes = self.needs_cache.notes(pack);
                self.new.iter().for_each(|new| notes.add_all(&new.notes(mac_key, pack)));
                if let Some(block) = block_of(mac_key, pack, &notes) {
                    blocks.append(*pack, &block)?;
                }
            } else if let Some(kept) = &self.needs_cache.kept {
                for block in kept.of(mac_key, pack) {
                    blocks.append(*pack, &block)?;
                }
            }
        }
        Ok(())
    }
}
