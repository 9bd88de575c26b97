//! The rows of one shard in a local file.
//!
//! ```text
//!   "LOAMROWS" | version 4 | packs 4 | rows 4 | filter bytes 4 | MAC 32 of all this, tables and filter
//!   packs × ( pack head 54 )
//!   blocks × ( first 8 bytes of the block's first id )
//!   the filter
//!   blocks × ( 76 × ( id 32 | kind 1 | pack 4 | slot 4 | offset 4 | encrypted 4 | raw 4 ) | 0 … | MAC 16 )     4096 bytes
//! ```
//!
//! Rows are sorted by id. Tables and filter are read once and kept; of the rows, one block is read for each blob that
//! the filter does not rule out. MACs are keyed BLAKE3 over the shard's name and the block's number, so that a file
//! that is damaged or replaced is detected before anything relies on it.

use std::io::{self, Write};

use xorf::{BinaryFuse8, Filter};

use super::handles::RowsFile;
use super::{IndexError, Location};
use crate::cursor::Cursor;
use crate::format::pack::{Directory, Entry, PackEncryptionInfo};
use crate::ids::{BlobId, BlobKind};
use crate::keys::Keys;

const MAGIC: &[u8; 8] = b"LOAMROWS";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 8 + 4 * 4 + 32;
const BLOCK_BYTES: usize = 4096;
const MAC_BYTES: usize = 16;
const ROW_BYTES: usize = 32 + 1 + 5 * 4;
const BLOCK_ROWS: usize = (BLOCK_BYTES - MAC_BYTES) / ROW_BYTES;
const PACK_BYTES: usize = 16 + 1 + 1 + 4 + 32;

type Row = [u8; ROW_BYTES];

/// The rows of one shard.
pub(super) struct ShardRows {
    /// The shard's object name.
    name: String,
    file: RowsFile,
    mac_key: blake3::Hasher,
    rows: u32,
    packs: Vec<PackEncryptionInfo>,
    /// The first eight bytes of the first id of each block.
    fences: Vec<u64>,
    filter: BinaryFuse8,
    /// Where the blocks begin.
    blocks_at: u64,
}

fn prefix(id: &[u8]) -> u64 {
    u64::from_be_bytes(*id.first_chunk().expect("ids are longer than eight bytes"))
}

/// Everything of a file but its blocks, and the blocks.
pub(super) struct EncodedShard {
    head: Vec<u8>,
    blocks: Vec<u8>,
}

/// Sorts the rows of some directories into the bytes of a file. CPU work.
pub(super) fn encode(keys: &Keys, name: &str, directories: &[Directory]) -> EncodedShard {
    let mut rows: Vec<Row> = Vec::with_capacity(directories.iter().map(|d| d.entries.len()).sum());
    for (pack, directory) in directories.iter().enumerate() {
        for (slot, offset, entry) in directory.placed() {
            let mut row = [0; ROW_BYTES];
            row[..32].copy_from_slice(entry.id.as_bytes());
            row[32] = entry.kind as u8;
            let fields = [pack as u32, slot, offset, entry.encrypted_bytes, entry.raw_bytes];
            for (at, field) in row[33..].as_chunks_mut::<4>().0.iter_mut().zip(fields) {
                *at = field.to_le_bytes();
            }
            rows.push(row);
        }
    }
    rows.sort_unstable();
    let mut prefixes: Vec<u64> = rows.iter().map(|row| prefix(row)).collect();
    prefixes.dedup();
    let filter = BinaryFuse8::try_from(&prefixes).expect("distinct numbers make a filter");
    let filter = rmp_serde::to_vec(&filter).expect("a filter is numbers and bytes");

    let mac_key = mac_key(keys, name);
    let mut blocks = Vec::with_capacity(rows.len().div_ceil(BLOCK_ROWS) * BLOCK_BYTES);
    let mut fences = Vec::with_capacity(rows.len().div_ceil(BLOCK_ROWS) * 8);
    for (number, chunk) in rows.chunks(BLOCK_ROWS).enumerate() {
        fences.extend_from_slice(&prefix(&chunk[0]).to_le_bytes());
        let start = blocks.len();
        blocks.extend_from_slice(chunk.as_flattened());
        blocks.resize(start + BLOCK_BYTES - MAC_BYTES, 0);
        let mac = block_mac(&mac_key, number as u64, &blocks[start..]);
        blocks.extend_from_slice(&mac);
    }
    let mut head = MAGIC.to_vec();
    for number in [VERSION, directories.len() as u32, rows.len() as u32, filter.len() as u32] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    let mut tables = Vec::new();
    directories.iter().for_each(|directory| directory.descriptor.write(&mut tables));
    tables.extend_from_slice(&fences);
    tables.extend_from_slice(&filter);
    let mac = head_mac(&mac_key, &head, &tables);
    head.extend_from_slice(mac.as_bytes());
    head.extend_from_slice(&tables);
    EncodedShard { head, blocks }
}

impl EncodedShard {
    #[cfg(test)]
    pub(super) fn concat(&self) -> Vec<u8> {
        [self.head.as_slice(), &self.blocks].concat()
    }

    pub(super) fn write(&self, file: &mut impl Write) -> io::Result<()> {
        file.write_all(&self.head)?;
        file.write_all(&self.blocks)
    }
}

/// A file is valid only under the name that it was made for.
fn mac_key(keys: &Keys, name: &str) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new_keyed(&keys.cache_key());
    hasher.update(name.as_bytes());
    hasher
}

fn block_mac(key: &blake3::Hasher, number: u64, rows: &[u8]) -> [u8; MAC_BYTES] {
    let mut hasher = key.clone();
    hasher.update(&number.to_le_bytes()).update(rows);
    *hasher.finalize().as_bytes().first_chunk().expect("a hash is longer than its beginning")
}

fn head_mac(key: &blake3::Hasher, head: &[u8], tables: &[u8]) -> blake3::Hash {
    key.clone().update(b"head").update(head).update(tables).finalize()
}

impl ShardRows {
    /// Reads the tables of a file made by [`encode`] for the shard `name`. `None` when it is not such a file.
    pub(super) fn open(keys: &Keys, name: &str, file: RowsFile) -> io::Result<Option<ShardRows>> {
        let mut header = [0; HEADER_BYTES];
        let file_bytes = file.bytes();
        if file_bytes < HEADER_BYTES as u64 {
            return Ok(None);
        }
        file.read_exact_at(&mut header, 0)?;
        let Some((packs, rows, filter_bytes)) = counts(&header) else { return Ok(None) };
        let blocks = u64::from(rows).div_ceil(BLOCK_ROWS as u64);
        let tables_bytes = u64::from(packs) * PACK_BYTES as u64 + blocks * 8 + u64::from(filter_bytes);
        let blocks_at = HEADER_BYTES as u64 + tables_bytes;
        if file_bytes != blocks_at + blocks * BLOCK_BYTES as u64 {
            return Ok(None);
        }
        let mut tables = vec![0; tables_bytes as usize];
        file.read_exact_at(&mut tables, HEADER_BYTES as u64)?;
        let mac_key = mac_key(keys, name);
        let (head, mac) = header.split_at(HEADER_BYTES - 32);
        if head_mac(&mac_key, head, &tables) != *<&[u8; 32]>::try_from(mac).expect("32 bytes are left") {
            return Ok(None);
        }
        let mut cursor = Cursor::new(&tables, "index file");
        let packs = (0..packs).map(|_| PackEncryptionInfo::read(&mut cursor)).collect::<Result<Vec<_>, _>>();
        let fences = (0..blocks).map(|_| cursor.u64()).collect::<Result<Vec<_>, _>>();
        let filter = rmp_serde::from_slice(&tables[tables.len() - filter_bytes as usize..]);
        let (Ok(packs), Ok(fences), Ok(filter)) = (packs, fences, filter) else { return Ok(None) };
        let name = name.to_owned();
        Ok(Some(ShardRows { name, file, mac_key, rows, packs, fences, filter, blocks_at }))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether its rows can still be read, as far as that is known without reading them.
    pub(super) fn is_there(&self) -> bool {
        self.file.is_there()
    }

    pub(super) fn len(&self) -> u32 {
        self.rows
    }

    pub(super) fn packs(&self) -> impl Iterator<Item = &PackEncryptionInfo> {
        self.packs.iter()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.filter.len() + self.fences.len() * 8 + self.packs.len() * size_of::<PackEncryptionInfo>()
    }

    fn block(&self, number: usize, block: &mut [u8; BLOCK_BYTES]) -> Result<usize, IndexError> {
        let at = self.blocks_at + (number * BLOCK_BYTES) as u64;
        self.file.read_exact_at(block, at).map_err(|source| IndexError::Cache {
            attempt: "read",
            path: self.file.path.clone(),
            source,
        })?;
        let (rows, mac) = block.split_at(BLOCK_BYTES - MAC_BYTES);
        if block_mac(&self.mac_key, number as u64, rows) != mac {
            return Err(IndexError::CacheDamaged { path: self.file.path.clone() });
        }
        Ok((self.rows as usize - number * BLOCK_ROWS).min(BLOCK_ROWS))
    }

    /// Calls `each` with the rows of a blob: more than one when several packs hold it.
    pub(super) fn visit(&self, id: &BlobId, each: &mut dyn FnMut(Location)) -> Result<(), IndexError> {
        let wanted = prefix(id.as_bytes());
        if !self.filter.contains(&wanted) {
            return Ok(());
        }
        // Rows of one id may begin at the end of the block before the first whose fence is not below.
        let first = self.fences.partition_point(|fence| *fence < wanted).saturating_sub(1);
        let last = self.fences.partition_point(|fence| *fence <= wanted);
        let mut block = [0; BLOCK_BYTES];
        for number in first..last {
            let rows = self.block(number, &mut block)?;
            let rows = &block.as_chunks::<ROW_BYTES>().0[..rows];
            let start = rows.partition_point(|row| row[..32] < id.as_bytes()[..]);
            for row in rows[start..].iter().take_while(|row| row[..32] == id.as_bytes()[..]) {
                each(self.place(row)?);
            }
        }
        Ok(())
    }

    pub(super) fn each(&self, each: &mut dyn FnMut(Location)) -> Result<(), IndexError> {
        let mut block = [0; BLOCK_BYTES];
        for number in 0..self.fences.len() {
            let rows = self.block(number, &mut block)?;
            for row in &block.as_chunks::<ROW_BYTES>().0[..rows] {
                each(self.place(row)?);
            }
        }
        Ok(())
    }

    fn place(&self, row: &Row) -> Result<Location, IndexError> {
        let damaged = || IndexError::CacheDamaged { path: self.file.path.clone() };
        let [pack, slot, offset, encrypted_bytes, raw_bytes] = std::array::from_fn(|field| {
            u32::from_le_bytes(*row[33 + 4 * field..].first_chunk().expect("a row has five fields"))
        });
        let id: [u8; 32] = *row.first_chunk().expect("a row begins with an id");
        let kind = BlobKind::from_byte(row[32]).ok_or_else(damaged)?;
        let pack = *self.packs.get(pack as usize).ok_or_else(damaged)?;
        Ok(Location { pack, slot, offset, entry: Entry { id: id.into(), kind, encrypted_bytes, raw_bytes } })
    }
}

fn counts(header: &[u8; HEADER_BYTES]) -> Option<(u32, u32, u32)> {
    let mut cursor = Cursor::new(header.strip_prefix(MAGIC.as_slice())?, "index file");
    let version = cursor.u32().ok()?;
    let counts = (cursor.u32().ok()?, cursor.u32().ok()?, cursor.u32().ok()?);
    (version == VERSION).then_some(counts)
}
