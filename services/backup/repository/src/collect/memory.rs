//! What collections remember of recipes, in a local file, so that each piece is read once and not at every run.
//!
//! ```text
//!   FOLDER/<repository id>/needs:   "LOAMNEED" | version 4 | blocks
//!
//!   block   pack 16 | text bytes 4 | length 4 | text, compressed by zstd | MAC 16 of all before     text: see notes.rs
//!
//!   run:   needs ──pread of a pack's block──> notes ──┐                          ┌──> needs, beside and renamed
//!          what was read and is new ──> nameless file ┴── packs met in this run ─┘
//! ```
//!
//! It can be thrown away: whatever cannot be read, is damaged or comes from another repository counts as not noted. A
//! run that ends well leaves notes of the packs that it met and of no others, so the file does not grow for ever. Without
//! a folder, notes live in a nameless file from the first half of a collection to the second.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use super::notes::Notes;
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
/// Notes of one pack are no longer than this: a pack of leaves makes some ten MB of them.
const TEXT_BYTES_MAX: usize = 256 * 1024 * 1024;
const ZSTD_LEVEL: i32 = 1;

/// Where a block lies.
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

/// What was noted by earlier runs.
pub(super) struct Memory {
    mac_key: blake3::Hasher,
    folder: Option<PathBuf>,
    kept: Option<Blocks>,
}

/// What one run learns.
pub(super) struct Learnt {
    memory: Arc<Memory>,
    new: Option<Blocks>,
    met: HashSet<PackId>,
    /// There is no room for notes.
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
    fn notes(&self, mac_key: &blake3::Hasher, pack: &PackId) -> Notes {
        let mut all = Notes::default();
        for notes in self.of(mac_key, pack).filter_map(|block| opened(pack, &block)) {
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

/// What an authentic block says of a pack.
fn opened(pack: &PackId, block: &[u8]) -> Option<Notes> {
    let (header, rest) = block.split_first_chunk::<HEADER_BYTES>()?;
    let (of, text_bytes, length) = fields(header)?;
    if of != *pack || text_bytes > TEXT_BYTES_MAX {
        return None;
    }
    let text = zstd::bulk::decompress(rest.get(..length)?, text_bytes).ok()?;
    Notes::decode(&text).ok()
}

/// The block that says so; `None` where there is too much to say.
fn sealed(mac_key: &blake3::Hasher, pack: &PackId, notes: &Notes) -> Option<Vec<u8>> {
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

impl Memory {
    /// What the cache folder holds; nothing, where nothing can be read.
    pub(super) fn open(cache: &Cache, keys: &Keys) -> Memory {
        let mut mac_key = blake3::Hasher::new_keyed(&keys.cache_key());
        mac_key.update(FILE.as_bytes());
        let folder = cache.folder().map(Path::to_owned);
        let file = folder.as_ref().and_then(|folder| File::open(folder.join(FILE)).ok());
        let kept = file.and_then(|file| Blocks::find(file).ok().flatten());
        Memory { mac_key, folder, kept }
    }

    /// What is noted of a pack.
    pub(super) fn notes(&self, pack: &PackId) -> Notes {
        self.kept.as_ref().map(|kept| kept.notes(&self.mac_key, pack)).unwrap_or_default()
    }

    fn nameless(&self) -> io::Result<File> {
        match &self.folder {
            Some(folder) => tempfile::tempfile_in(folder),
            None => tempfile::tempfile(),
        }
    }
}

impl Learnt {
    pub(super) fn new(memory: Arc<Memory>) -> Learnt {
        Learnt { memory, new: None, met: HashSet::new(), is_full: false }
    }

    /// This run needs something of a pack: what is noted of it is kept. Says whether it is the first time.
    pub(super) fn meet(&mut self, pack: PackId) -> bool {
        self.met.insert(pack)
    }

    /// Notes more of a pack.
    pub(super) fn add(&mut self, pack: PackId, notes: &Notes) {
        if self.is_full || notes.is_empty() {
            return;
        }
        let Some(block) = sealed(&self.memory.mac_key, &pack, notes) else { return };
        if let Err(error) = self.append(pack, &block) {
            warn!(%error, "what was found out about recipes cannot be noted and will be read again");
            self.is_full = true;
        }
    }

    fn append(&mut self, pack: PackId, block: &[u8]) -> io::Result<()> {
        let new = match &mut self.new {
            Some(new) => new,
            none => none.insert(Blocks::begin(self.memory.nameless()?)?),
        };
        new.append(pack, block)
    }

    /// Keeps what was learnt and what was known of the packs that this run met; only for a run that ended well.
    pub(super) fn keep(self) -> Arc<Memory> {
        let is_met = |kept: &Blocks| kept.of.keys().all(|pack| self.met.contains(pack));
        let is_same = self.new.is_none() && self.memory.kept.as_ref().is_none_or(is_met);
        if self.is_full || is_same {
            return self.memory;
        }
        match self.write() {
            Ok(kept) => {
                let Memory { mac_key, folder, .. } = &*self.memory;
                Arc::new(Memory { mac_key: mac_key.clone(), folder: folder.clone(), kept: Some(kept) })
            }
            Err(error) => {
                warn!(%error, "what was found out about recipes could not be kept and will be read again");
                self.memory
            }
        }
    }

    /// Writes a file beside the old one, and gives it the name when it is whole.
    fn write(&self) -> io::Result<Blocks> {
        let Some(folder) = &self.memory.folder else {
            let mut blocks = Blocks::begin(self.memory.nameless()?)?;
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
        let mac_key = &self.memory.mac_key;
        for pack in &self.met {
            let is_new = self.new.as_ref().is_some_and(|new| new.of.contains_key(pack));
            if is_new {
                let mut notes = self.memory.notes(pack);
                self.new.iter().for_each(|new| notes.add_all(&new.notes(mac_key, pack)));
                if let Some(block) = sealed(mac_key, pack, &notes) {
                    blocks.append(*pack, &block)?;
                }
            } else if let Some(kept) = &self.memory.kept {
                for block in kept.of(mac_key, pack) {
                    blocks.append(*pack, &block)?;
                }
            }
        }
        Ok(())
    }
}
