//! A pack: many sealed blobs in one object.
//!
//! ```text
//!   blob 0 | blob 1 | … | directory | footer
//!
//!   blob       AES-256-GCM( key of the pack, nonce = slot, bound = id 32 | kind 1 | pack 16 | slot 4 )
//!              of: encoding 1 | content raw or zstd
//!   directory  AES-256-GCM( key of the pack, nonce = 2^32-1, bound = "directory" | pack 16 | pack kind 1 )
//!              of: count 4 | count × ( id 32 | kind 1 | sealed length 4 | raw length 4 )
//!              blobs lie one after the other in this order, so offsets are sums
//!   footer     "LOAMPACK" | version 2 | pack kind 1 | 0 | directory length 4 | directory offset 8 | pack 16 |
//!              0 × 8 | first 16 bytes of BLAKE3 of the 48 bytes before
//! ```
//!
//! The key comes from the master key and the pack's random id, so every slot number is a nonce used once, and a
//! pack stored under another's name does not open.

use super::blob::{self, BLOB_BYTES_MAX, BlobId, BlobKind};
use super::bytes::Cursor;
use super::{Damage, VERSION, header};
use crate::keys::{Aead, Keys, TAG_BYTES};

const MAGIC: &[u8; 8] = b"LOAMPACK";
/// Bytes at the very end of a pack.
pub(crate) const FOOTER_BYTES: usize = 64;
const DIRECTORY_SLOT: u32 = u32::MAX;
const ENTRY_BYTES: usize = 32 + 1 + 4 + 4;
const WHAT: &str = "pack";

/// Names a pack: 128 random bits, so that a name tells nothing and is never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PackId([u8; 16]);

impl PackId {
    pub(crate) fn generate() -> PackId {
        PackId(crate::keys::random())
    }

    pub(crate) fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl From<[u8; 16]> for PackId {
    fn from(bytes: [u8; 16]) -> PackId {
        PackId(bytes)
    }
}

impl std::fmt::Display for PackId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl std::fmt::Debug for PackId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackId({self})")
    }
}

impl std::str::FromStr for PackId {
    type Err = hex::FromHexError;

    fn from_str(name: &str) -> Result<PackId, hex::FromHexError> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(name, &mut bytes)?;
        Ok(PackId(bytes))
    }
}

/// Data and recipes lie in packs of their own, so that reading recipes fetches no data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum PackKind {
    Data = 0,
    Meta = 1,
}

impl PackKind {
    pub(crate) const ALL: [PackKind; 2] = [PackKind::Data, PackKind::Meta];

    pub(crate) fn of(kind: BlobKind) -> PackKind {
        match kind {
            BlobKind::Chunk => PackKind::Data,
            BlobKind::Leaf | BlobKind::Page | BlobKind::Disk => PackKind::Meta,
        }
    }

    pub(crate) fn from_byte(byte: u8) -> Option<PackKind> {
        PackKind::ALL.get(usize::from(byte)).copied()
    }
}

/// One blob of a pack. Its slot is its place in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: BlobId,
    pub(crate) kind: BlobKind,
    pub(crate) sealed_bytes: u32,
    pub(crate) raw_bytes: u32,
}

/// All that a pack holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directory {
    pub(crate) pack: PackId,
    pub(crate) kind: PackKind,
    pub(crate) entries: Vec<Entry>,
}

impl Directory {
    /// Each entry with its slot and offset.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (u32, u32, &Entry)> {
        let mut offset = 0;
        self.entries.iter().zip(0..).map(move |(entry, slot)| {
            let at = offset;
            offset += entry.sealed_bytes;
            (slot, at, entry)
        })
    }

    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        for entry in &self.entries {
            out.extend_from_slice(entry.id.as_bytes());
            out.push(entry.kind as u8);
            out.extend_from_slice(&entry.sealed_bytes.to_le_bytes());
            out.extend_from_slice(&entry.raw_bytes.to_le_bytes());
        }
    }

    pub(crate) fn read(pack: PackId, kind: PackKind, cursor: &mut Cursor<'_>) -> Result<Directory, Damage> {
        let mut entries = Vec::with_capacity(cursor.count(ENTRY_BYTES)?);
        let mut end = 0u32;
        for _ in 0..entries.capacity() {
            let id = BlobId::from(cursor.array()?);
            let blob =
                BlobKind::from_byte(cursor.u8()?).ok_or_else(|| cursor.malformed("a kind is unknown"))?;
            let entry = Entry { id, kind: blob, sealed_bytes: cursor.u32()?, raw_bytes: cursor.u32()? };
            if PackKind::of(blob) != kind || entry.raw_bytes as usize > BLOB_BYTES_MAX {
                return Err(cursor.malformed("an entry makes no sense"));
            }
            end = end
                .checked_add(entry.sealed_bytes)
                .ok_or_else(|| cursor.malformed("its blobs are too long together"))?;
            entries.push(entry);
        }
        Ok(Directory { pack, kind, entries })
    }
}

/// A pack being filled.
pub(crate) struct PackWriter {
    id: PackId,
    kind: PackKind,
    key: Aead,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

impl PackWriter {
    /// An empty pack with a fresh name and room for `capacity` bytes.
    pub(crate) fn new(keys: &Keys, kind: PackKind, capacity: usize) -> PackWriter {
        let id = PackId::generate();
        PackWriter { id, kind, key: keys.pack(id), bytes: Vec::with_capacity(capacity), entries: Vec::new() }
    }

    /// Seals an encoded blob into the next slot; returns the bytes it takes.
    pub(crate) fn add(&mut self, kind: BlobKind, id: BlobId, raw_bytes: usize, mut text: Vec<u8>) -> u32 {
        let slot = self.entries.len() as u32;
        self.key.seal(slot, &bound(id, kind, self.id, slot), &mut text);
        let sealed_bytes = text.len() as u32;
        self.bytes.extend_from_slice(&text);
        self.entries.push(Entry { id, kind, sealed_bytes, raw_bytes: raw_bytes as u32 });
        sealed_bytes
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The whole object and what is in it.
    pub(crate) fn finish(mut self) -> (Vec<u8>, Directory) {
        let directory = Directory { pack: self.id, kind: self.kind, entries: self.entries };
        let offset = self.bytes.len() as u64;
        let mut sealed = Vec::new();
        directory.write(&mut sealed);
        self.key.seal(DIRECTORY_SLOT, &directory_bound(self.id, self.kind), &mut sealed);
        self.bytes.extend_from_slice(&sealed);
        let footer = Footer { kind: self.kind, pack: self.id, directory_offset: offset };
        self.bytes.extend_from_slice(&footer.encode(sealed.len() as u32));
        (self.bytes, directory)
    }
}

/// The last 64 bytes, in the clear.
struct Footer {
    kind: PackKind,
    pack: PackId,
    directory_offset: u64,
}

impl Footer {
    fn encode(&self, directory_bytes: u32) -> [u8; FOOTER_BYTES] {
        let mut footer = [0; FOOTER_BYTES];
        footer[..8].copy_from_slice(MAGIC);
        footer[8..10].copy_from_slice(&VERSION.to_le_bytes());
        footer[10] = self.kind as u8;
        footer[12..16].copy_from_slice(&directory_bytes.to_le_bytes());
        footer[16..24].copy_from_slice(&self.directory_offset.to_le_bytes());
        footer[24..40].copy_from_slice(self.pack.as_bytes());
        let check = blake3::hash(&footer[..48]);
        footer[48..].copy_from_slice(&check.as_bytes()[..16]);
        footer
    }
}

/// Where the directory of a pack of `pack_bytes` lies, from its last 64 bytes.
pub(crate) fn directory_range(
    pack: PackId,
    kind: PackKind,
    pack_bytes: u64,
    footer: &[u8; FOOTER_BYTES],
) -> Result<std::ops::Range<u64>, Damage> {
    let malformed = |why| Damage::Malformed { what: WHAT, why };
    let mut cursor = Cursor::new(header(MAGIC, WHAT, footer)?, WHAT);
    if blake3::hash(&footer[..48]).as_bytes()[..16] != footer[48..] {
        return Err(malformed("its footer does not match its checksum"));
    }
    let found_kind = PackKind::from_byte(cursor.u8()?).ok_or_else(|| malformed("its kind is unknown"))?;
    cursor.u8()?;
    let directory_bytes = u64::from(cursor.u32()?);
    let offset = cursor.u64()?;
    if found_kind != kind || PackId(cursor.array()?) != pack {
        return Err(malformed("it is stored under the name of another pack"));
    }
    let end = pack_bytes.checked_sub(FOOTER_BYTES as u64);
    if offset.checked_add(directory_bytes) != end {
        return Err(malformed("its length is not what its footer says"));
    }
    Ok(offset..offset + directory_bytes)
}

/// Opens a directory found by [`directory_range`], which began at `offset`.
pub(crate) fn open_directory(
    keys: &Keys,
    pack: PackId,
    kind: PackKind,
    offset: u64,
    sealed: &[u8],
) -> Result<Directory, Damage> {
    let mut sealed = sealed.to_vec();
    let text = keys
        .pack(pack)
        .open(DIRECTORY_SLOT, &directory_bound(pack, kind), &mut sealed)
        .map_err(|_| Damage::NotAuthentic { what: "directory of a pack" })?;
    let mut cursor = Cursor::new(text, "directory of a pack");
    let directory = Directory::read(pack, kind, &mut cursor)?;
    cursor.end()?;
    if directory.entries.iter().map(|entry| u64::from(entry.sealed_bytes)).sum::<u64>() != offset {
        return Err(Damage::Malformed { what: WHAT, why: "its blobs do not fill it" });
    }
    Ok(directory)
}

/// Opens and checks one blob of a pack; `sealed` is overwritten.
pub(crate) fn open_blob(
    keys: &Keys,
    key: &Aead,
    pack: PackId,
    slot: u32,
    entry: &Entry,
    sealed: &mut [u8],
) -> Result<Vec<u8>, Damage> {
    if sealed.len() < TAG_BYTES + 1 {
        return Err(Damage::Malformed { what: entry.kind.word(), why: "it ends too early" });
    }
    let text = key
        .open(slot, &bound(entry.id, entry.kind, pack, slot), sealed)
        .map_err(|_| Damage::NotAuthentic { what: entry.kind.word() })?;
    blob::decode(keys, entry.kind, entry.id, entry.raw_bytes as usize, text)
}

fn bound(id: BlobId, kind: BlobKind, pack: PackId, slot: u32) -> [u8; 53] {
    let mut bound = [0; 53];
    bound[..32].copy_from_slice(id.as_bytes());
    bound[32] = kind as u8;
    bound[33..49].copy_from_slice(pack.as_bytes());
    bound[49..].copy_from_slice(&slot.to_le_bytes());
    bound
}

fn directory_bound(pack: PackId, kind: PackKind) -> Vec<u8> {
    let mut bound = b"directory".to_vec();
    bound.extend_from_slice(pack.as_bytes());
    bound.push(kind as u8);
    bound
}
