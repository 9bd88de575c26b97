//! The parsers of everything that is stored, for the fuzzer in `fuzz/` and the test that replays its corpus.
//!
//! ```text
//!   input   which parser 1 | bytes
//!
//!   objects   as they lie in the store
//!   texts     what they hold when decrypted: a fuzzer cannot encrypt
//!   files     files of the cache folder
//! ```
//!
//! Each parser returns for any input, and allocates no more than the input and a constant allow. The keys are fixed and
//! public. Compiled for tests and the fuzzer only.

use std::io::{Seek, Write};

use crate::chunker::DiskChunker;
use crate::collect::condemned;
use crate::cursor::Cursor;
use crate::format::blob::{self, BLOB_BYTES_MAX};
use crate::format::config::Config;
use crate::format::pack::{self, Directory, FOOTER_BYTES, Footer, PackEncryptionInfo, PackKind};
use crate::format::recipe::{self, DiskRecipe, LEAVES_PER_PAGE};
use crate::format::roster::UnverifiedKeyRoster;
use crate::format::snapshot::SnapshotContents;
use crate::format::stream::StreamRecipe;
use crate::format::{encrypted, packed, shard};
use crate::ids::{BlobId, BlobKind, PackId};
use crate::keys::{Cipher, Keys};
use crate::store::names;
use crate::{index, pin};

/// A parser, and what it is called in the corpus.
pub type Parser = (&'static str, fn(&[u8]));

/// Objects as they lie in the store.
pub const OBJECTS: &[Parser] =
    &[("config", config), ("roster", roster), ("sealed", open_sealed), ("pack", read_pack)];

/// What objects hold when decrypted.
pub const TEXTS: &[Parser] = &[
    ("contents", contents),
    ("shard", |text| drop(shard::decode(text))),
    ("leaf", leaf),
    ("page", |text| drop(recipe::decode_page(text, LEAVES_PER_PAGE as u64))),
    ("disk", disk),
    ("stream", |text| drop(StreamRecipe::decode(text))),
    ("directory", directory),
    ("packs", |text| drop(condemned::decode_packs(text))),
    ("waits", |text| drop(condemned::decode_waits(text))),
    ("grant", |text| drop(Keys::read_grant(text))),
    ("blob", decode_blob),
];

/// Files of the cache folder.
pub const FILES: &[Parser] = &[("rows", rows), ("pin", |note| drop(pin::decode(note)))];

/// Gives an input to the parser that it names.
pub fn run(parsers: &[Parser], input: &[u8]) {
    if let Some((which, bytes)) = input.split_first() {
        let (_, parse) = parsers[usize::from(*which) % parsers.len()];
        parse(bytes);
    }
}

fn config(object: &[u8]) {
    if let Ok(claimed) = Config::decode(object) {
        // Parameters that were let in are ones that can be cut with.
        let segment = object.repeat(100_000 / object.len() + 1);
        let pieces = DiskChunker::new(claimed.config.chunking, &Keys::known(), 0).cut(&segment);
        assert!(!pieces.is_empty());
        let cut = claimed.config.stream_chunking.next_cut(0, &segment);
        assert!(cut > 0 && cut <= segment.len());
    }
}

fn roster(object: &[u8]) {
    if let Ok(roster) = UnverifiedKeyRoster::decode(object) {
        let repository = crate::RepositoryId::known();
        // The slot that it names does not open, or gives keys that are used.
        if let Ok(keys) = roster.reopen(repository, &Keys::known()) {
            assert!(keys.current().number > 0);
        }
    }
}

fn open_sealed(object: &[u8]) {
    let name = names::entry(names::SNAPSHOTS, ulid::Ulid::from_bytes([5; 16]));
    if let Ok(text) = encrypted::decrypt(&Keys::known(), &name, "snapshot", object) {
        contents(&text);
    }
}

fn read_pack(object: &[u8]) {
    let Some((rest, footer)) = object.split_last_chunk::<FOOTER_BYTES>() else { return };
    for kind in PackKind::ALL {
        // The checksum stops damage, not malice.
        let mut footer = *footer;
        let check = blake3::hash(&footer[..FOOTER_BYTES - 16]);
        footer[FOOTER_BYTES - 16..].copy_from_slice(&check.as_bytes()[..16]);
        let footer = Footer::decode(PackId::from([9; 16]), kind, object.len() as u64, &footer);
        let Ok(footer) = footer else { continue };
        let range = footer.directory();
        let encrypted = &rest[range.start as usize..range.end as usize];
        if let Ok(directory) = pack::decrypt_directory(&Keys::known(), &footer, encrypted) {
            open_blobs(&directory, rest);
        }
    }
}

fn open_blobs(directory: &Directory, rest: &[u8]) {
    let keys = Keys::known();
    let Ok(key) = directory.descriptor.key(&keys) else { return };
    for (slot, offset, entry) in directory.placed() {
        let mut encrypted = rest[offset as usize..(offset + entry.encrypted_bytes) as usize].to_vec();
        drop(pack::decrypt_blob(&keys, &key, directory.descriptor.id, slot, entry, &mut encrypted));
    }
}

fn contents(text: &[u8]) {
    if let Ok(contents) = packed::decode::<SnapshotContents>(text, "snapshot") {
        drop(contents.definition.decrypt(&Keys::known()));
    }
}

fn leaf(text: &[u8]) {
    for covers in [0, 100_000, 4 << 20, u64::MAX] {
        if let Ok(pieces) = recipe::decode_leaf(text, covers) {
            assert_eq!(recipe::encode_leaf(&pieces), text, "there is one way to write it");
        }
        drop(recipe::decode_stream_leaf(text, covers));
    }
}

fn disk(text: &[u8]) {
    if let Ok(disk) = DiskRecipe::decode(text)
        && text.len() <= BLOB_BYTES_MAX
    {
        assert_eq!(disk.encode(), text, "there is one way to write it");
        if let Some(last) = disk.segments().checked_sub(1) {
            assert_eq!(disk.segment(last).end, disk.size_bytes);
            assert!(disk.leaves(disk.pages.len() as u64 - 1) > 0);
        }
    }
}

fn directory(text: &[u8]) {
    for kind in PackKind::ALL {
        let cipher = Cipher::Aes256Gcm;
        let head = PackEncryptionInfo {
            id: PackId::from([9; 16]),
            kind,
            cipher,
            epoch: 1,
            ephemeral_public_key: [0; 32],
        };
        let mut cursor = Cursor::new(text, "directory");
        if let Ok(directory) = Directory::read(head, &mut cursor) {
            let end = directory.placed().last().map(|(_, offset, entry)| offset + entry.encrypted_bytes);
            assert!(end.is_none_or(|end| end > 0));
        }
    }
}

fn decode_blob(bytes: &[u8]) {
    let Some((length, text)) = bytes.split_first_chunk::<4>() else { return };
    let raw_bytes = u32::from_le_bytes(*length) as usize;
    drop(blob::decode(&Keys::known(), BlobKind::Chunk, BlobId::from([0; 32]), raw_bytes, text));
}

fn rows(file: &[u8]) {
    let mut made = tempfile::tempfile().expect("a nameless file");
    made.write_all(file).and_then(|()| made.rewind()).expect("written");
    index::read_rows(made);
}

#[cfg(test)]
mod tests;
