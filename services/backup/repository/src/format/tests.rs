//! What is written is read back, and nothing else is.

use proptest::prelude::*;

use super::pack::{
    self, Directory, FOOTER_BYTES, Footer, NewPackParams, PackEncryptionInfo, PackKind, PackWriter,
};
use super::private::Private;
use super::recipe::{self, DiskRecipe, Piece};
use super::roster::UnverifiedKeyRoster;
use super::stream::StreamRecipe;
use super::*;
use crate::compression::Compression;
use crate::cursor::Cursor;
use crate::ids::RepositoryId;
use crate::ids::{BlobId, BlobKind, PackId};
use crate::keys::{Cipher, KdfCost, KeyRoster, Keys, Role, Secret, SlotOwner};

const CHEAP: KdfCost = KdfCost { memory_kib: 8, passes: 1, lanes: 1 };

fn words() -> Secret {
    Secret::passphrase("words").expect("a passphrase")
}

fn fresh_keys() -> (Vec<u8>, Keys, RepositoryId) {
    let id = RepositoryId::generate();
    let (roster, keys) = KeyRoster::first(id, "first".into(), words(), CHEAP, 0).expect("made");
    let object = roster::encode(&roster, &keys).expect("full");
    (object, keys, id)
}

fn id() -> impl Strategy<Value = BlobId> {
    any::<[u8; 32]>().prop_map(BlobId::from)
}

fn head(kind: PackKind) -> PackEncryptionInfo {
    PackEncryptionInfo {
        id: PackId::from([0; 16]),
        kind,
        cipher: Cipher::Aes256Gcm,
        epoch: 1,
        ephemeral_public_key: [0; 32],
    }
}

proptest! {
    #[test]
    fn readers_take_any_bytes_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        // Whatever comes, it is an error or a value, and never a panic or a huge allocation.
        let _ = recipe::decode_leaf(&bytes, 4 << 20);
        let _ = recipe::decode_page(&bytes, 1024);
        let _ = DiskRecipe::decode(&[b"disk", bytes.as_slice()].concat());
        let _ = StreamRecipe::decode(&[b"strm", bytes.as_slice()].concat());
        let _ = shard::decode(&bytes);
        let _ = config::Config::decode(&[b"LOAMREPO\x01\0", bytes.as_slice()].concat());
        let _ = UnverifiedKeyRoster::decode(&[b"LOAMKEYS\x01\0", bytes.as_slice()].concat());
        let _ = Directory::read(head(PackKind::Data), &mut Cursor::new(&bytes, "directory"));
        if let Some(footer) = bytes.last_chunk::<FOOTER_BYTES>() {
            let _ = Footer::decode(PackId::from([0; 16]), PackKind::Data, bytes.len() as u64, footer);
        }
    }

    #[test]
    fn recipes_are_read_as_they_were_written(
        pieces in prop::collection::vec((prop::option::of(id()), 1u32..200_000), 1..80),
        leaves in prop::collection::vec(prop::option::of(id()), 0..100),
    ) {
        let pieces: Vec<_> = pieces
            .into_iter()
            .map(|(id, bytes)| match id {
                None => Piece::Hole { bytes },
                Some(id) => Piece::Chunk { id, bytes },
            })
            .collect();
        let segment_bytes = pieces.iter().map(|piece| u64::from(piece.bytes())).sum();
        let leaf = recipe::encode_leaf(&pieces);
        prop_assert_eq!(recipe::decode_leaf(&leaf, segment_bytes), Ok(pieces));
        prop_assert!(recipe::decode_leaf(&leaf, segment_bytes + 1).is_err());
        let page = recipe::encode_page(&leaves);
        prop_assert_eq!(recipe::decode_page(&page, leaves.len() as u64), Ok(leaves.clone()));
        let of_stream: Vec<_> = leaves.iter().flatten().map(|id| (u64::from(id.as_bytes()[0]), *id)).collect();
        let stream = StreamRecipe { size_bytes: of_stream.iter().map(|(bytes, _)| bytes).sum(), leaves: of_stream };
        prop_assert_eq!(StreamRecipe::decode(&stream.encode()), Ok(stream));
        let disk = DiskRecipe { size_bytes: (leaves.len() as u64) << 32, segment_bytes: 4 << 20, pages: leaves };
        prop_assert_eq!(DiskRecipe::decode(&disk.encode()), Ok(disk));
    }

    #[test]
    fn packs_are_read_as_they_were_written_and_not_otherwise(
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..20),
        flipped: prop::sample::Index,
        by_chacha: bool,
        of_recipes: bool,
    ) {
        let (_, keys, _) = fresh_keys();
        let cipher = if by_chacha { Cipher::ChaCha20Poly1305 } else { Cipher::Aes256Gcm };
        let (kind, blob_kind) =
            if of_recipes { (PackKind::Meta, BlobKind::RecipeLeaf) } else { (PackKind::Data, BlobKind::Chunk) };
        let seed = NewPackParams { cipher, ..NewPackParams::generate() };
        let mut writer = PackWriter::new(&keys, kind, &seed, 0).expect("begun");
        for content in &contents {
            let text = blob::encode(content, Compression::default(), crate::keys::TAG_BYTES);
            writer.add(blob_kind, keys.id(blob_kind, content), content.len(), text);
        }
        let (mut object, directory) = writer.finish();
        prop_assert_eq!(read(&keys, &directory, &object), Some(contents));
        let at = flipped.index(object.len());
        object[at] ^= 1;
        prop_assert_eq!(read(&keys, &directory, &object), None, "byte {} was changed", at);
    }
}

/// Everything in a pack, when all of it is as it should be.
fn read(keys: &Keys, written: &Directory, object: &[u8]) -> Option<Vec<Vec<u8>>> {
    let PackEncryptionInfo { id, kind, .. } = written.descriptor;
    let footer = Footer::decode(id, kind, object.len() as u64, object.last_chunk::<FOOTER_BYTES>()?).ok()?;
    let range = footer.directory();
    let encrypted = object.get(range.start as usize..range.end as usize)?;
    let directory = pack::decrypt_directory(keys, &footer, encrypted).ok()?;
    assert_eq!(&directory, written, "an authentic directory is the one that was written");
    let key = directory.descriptor.key(keys).ok()?;
    directory
        .placed()
        .map(|(slot, offset, entry)| {
            let encrypted = &object[offset as usize..(offset + entry.encrypted_bytes) as usize];
            pack::decrypt_blob(keys, &key, id, slot, entry, &mut encrypted.to_vec()).ok()
        })
        .collect()
}

#[test]
fn a_leaf_of_a_stream_with_a_hole_is_refused() {
    let huge = recipe::encode_leaf(&[Piece::Hole { bytes: u32::MAX }]);
    assert!(recipe::decode_leaf(&huge, u64::from(u32::MAX)).is_ok(), "a disk may have one");
    assert!(recipe::decode_stream_leaf(&huge, u64::from(u32::MAX)).is_err(), "it would be held in memory");
    let honest = recipe::encode_leaf(&[Piece::Chunk { id: BlobId::from([1; 32]), bytes: 5 }]);
    assert!(recipe::decode_stream_leaf(&honest, 5).is_ok());
}

#[test]
fn a_write_only_slot_seals_what_it_cannot_open_and_a_full_one_opens_it() {
    let (object, keys, id) = fresh_keys();
    let writer = Secret::passphrase("writer").expect("a passphrase");
    let roster = UnverifiedKeyRoster::decode(&object).expect("ours").roster;
    let owner = SlotOwner::Secret(writer, CHEAP);
    let (roster, _) = roster.with_slot(&keys, "host".into(), Role::WriteOnly, owner, 0).expect("added");
    let roster = UnverifiedKeyRoster::decode(&roster::encode(&roster, &keys).expect("full")).expect("ours");
    let writer = Secret::passphrase("writer").expect("a passphrase");
    let writer = roster.open(id, &writer).expect("opens");
    assert!(!writer.can_read());
    let mut pack = PackWriter::new(&writer, PackKind::Data, &NewPackParams::generate(), 0).expect("begun");
    let chunk = b"bytes of a disk";
    let text = blob::encode(chunk, Compression::default(), 16);
    pack.add(BlobKind::Chunk, writer.id(BlobKind::Chunk, chunk), chunk.len(), text);
    let (object, directory) = pack.finish();
    assert_eq!(read(&keys, &directory, &object), Some(vec![chunk.to_vec()]));
    assert!(matches!(directory.descriptor.key(&writer).map(drop), Err(Damage::WriteOnlyKey(_))));
    let private = Private::encrypt(&writer, b"a definition").expect("encrypted");
    assert_eq!(private.decrypt(&keys).expect("opens"), b"a definition");
    assert!(matches!(private.decrypt(&writer), Err(Damage::WriteOnlyKey(_))));
    assert!(matches!(roster::encode(&roster.roster, &writer), Err(Damage::WriteOnlyKey(_))));
}

#[test]
fn a_roster_that_was_changed_or_forged_does_not_open() {
    let (object, _, id) = fresh_keys();
    assert!(UnverifiedKeyRoster::decode(&object).expect("ours").open(id, &words()).is_ok());
    for at in 10..object.len() {
        let mut changed = object.clone();
        changed[at] ^= 1;
        let opened = UnverifiedKeyRoster::decode(&changed).map(|roster| roster.open(id, &words()).is_ok());
        assert!(!opened.unwrap_or(false), "byte {at} was changed");
    }
    let other = RepositoryId::generate();
    assert!(UnverifiedKeyRoster::decode(&object).expect("ours").open(other, &words()).is_err());
}

#[test]
fn a_slot_that_would_exhaust_the_machine_is_refused() {
    let (honest, ..) = fresh_keys();
    let at = honest.windows(10).position(|name| name == b"memory_kib").expect("it is there") + 10;
    // The number 8 becomes the largest that fits: 0xce and four bytes.
    let greedy = [&honest[..at], &[0xce, 0xff, 0xff, 0xff, 0xff], &honest[at + 1..]].concat();
    assert!(matches!(UnverifiedKeyRoster::decode(&greedy), Err(Damage::Malformed { .. })));
}

#[test]
fn only_a_newer_format_is_reported_as_newer() {
    let read = |version: u16| {
        header(b"LOAMTEST", "test", &[b"LOAMTEST".as_slice(), &version.to_le_bytes()].concat())
            .map(<[u8]>::len)
    };
    assert_eq!(read(FORMAT_VERSION), Ok(0));
    assert_eq!(
        read(FORMAT_VERSION + 1),
        Err(Damage::NewerFormatVersion { what: "test", found: FORMAT_VERSION + 1 })
    );
    assert!(matches!(read(0), Err(Damage::Malformed { .. })));
}
