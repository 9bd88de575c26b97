//! The bytes that version 1 writes for known keys and contents: `tests/golden/v1/vectors.json`.
//!
//! `LOAM_WRITE_SAMPLES=1` writes vectors that are not there yet. One that is there is never changed: a difference means
//! that what this code writes is not version 1. zstd's frames are left out, because its releases differ;
//! that old frames are read is shown by the repository beside the vectors.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::blob;
use super::config::Config;
use super::encrypted::{self, ObjectEncryptionParams};
use super::pack::{NewPackParams, PackKind, PackWriter};
use super::private::Private;
use super::recipe::{self, DiskRecipe, Piece};
use super::snapshot::{BackupStats, Consistency, DiskRecord, RecordKind, SnapshotContents, SnapshotId};
use super::stream::StreamRecipe;
use super::{packed, shard};
use crate::chunker::{Chunker, Chunking, DiskChunker, PieceRange, StreamChunking};
use crate::collect::condemned;
use crate::compression::Compression;
use crate::ids::{BlobId, BlobKind, PackId, RepositoryId};
use crate::keys::{Cipher, Keys};
use crate::snapshots::holds;
use crate::store::{LockMode, ObjectLock, names};
use crate::{lease, object_times};
use ulid::Ulid;

const CIPHERS: [(&str, Cipher); 2] =
    [("aes-256-gcm", Cipher::Aes256Gcm), ("chacha20-poly1305", Cipher::ChaCha20Poly1305)];

/// Bytes that look random and are derived from a seed; zstd cannot compress them.
fn noise(seed: &str, bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut noise);
    noise
}

fn id(byte: u8) -> BlobId {
    BlobId::from([byte; 32])
}

fn hex(bytes: &[u8]) -> Value {
    json!(hex::encode(bytes))
}

/// Where each piece ends; holes are negative.
fn ends(cuts: &[PieceRange]) -> Value {
    let end = |cut: &PieceRange| match cut {
        PieceRange::Hole(range) => -(range.end as i64),
        PieceRange::Chunk(range) => range.end as i64,
    };
    cuts.iter().map(end).collect()
}

fn segment() -> Vec<u8> {
    let mut segment = noise("a segment", 4 << 20);
    segment[..200_000].fill(0);
    segment[1_000_000..1_300_001].fill(0);
    segment[2_000_000..2_040_000].fill(0);
    segment
}

fn cuts(keys: &Keys) -> Value {
    let segment = segment();
    let mut stream = noise("a stream", 12 << 20);
    stream[5 << 20..9 << 20].fill(b' ');
    let mut stream_ends = Vec::new();
    let mut at = 0;
    while at < stream.len() {
        at += StreamChunking::default().next_cut(keys.chunker_seed(), &stream[at..]);
        stream_ends.push(at);
    }
    let cutter = DiskChunker::new(Chunking::default(), keys, 0);
    json!({
        "segment": ends(&cutter.cut(&segment)),
        "short last segment": ends(&cutter.cut(&segment[..777])),
        "stream": stream_ends,
    })
}

fn aligned_cuts(keys: &Keys) -> Value {
    let segment = segment();
    let cut = |phase, bytes| {
        ends(&DiskChunker::new(Chunker::AlignedCdc.into(), keys, phase).cut(&segment[..bytes]))
    };
    json!({
        "segment": cut(0, segment.len()),
        "short last segment": cut(0, 777),
        "segment of a disk with phase 3584": cut(3584, segment.len()),
    })
}

fn recipes() -> Value {
    let leaf = [
        Piece::Hole { bytes: 65_536 },
        Piece::Chunk { id: id(1), bytes: 70_000 },
        Piece::Chunk { id: id(2), bytes: 300 },
    ];
    let ids = [Some(id(3)), None, Some(id(4))];
    let disk = DiskRecipe { size_bytes: (9 << 30) + 512, segment_bytes: 4 << 20, pages: ids.to_vec() };
    let stream = StreamRecipe { size_bytes: 1_000_000, leaves: vec![(999_999, id(5)), (1, id(6))] };
    json!({
        "leaf": hex(&recipe::encode_leaf(&leaf)),
        "page": hex(&recipe::encode_page(&ids)),
        "disk": hex(&disk.encode()),
        "stream": hex(&stream.encode()),
    })
}

fn pack(keys: &Keys, kind: PackKind, cipher: Cipher) -> (Value, Vec<u8>) {
    let seed = NewPackParams { id: PackId::from([9; 16]), ephemeral_private_key: [8; 32], cipher };
    let mut writer = PackWriter::new(keys, kind, &seed, 0).expect("begun");
    let blob_kind = if kind == PackKind::Data { BlobKind::Chunk } else { BlobKind::RecipeLeaf };
    for content in [noise("one", 100), noise("two", 33), Vec::new()] {
        writer.add(
            blob_kind,
            keys.id(blob_kind, &content),
            content.len(),
            blob::encode(&content, Compression::default(), 0),
        );
    }
    let (object, directory) = writer.finish();
    (hex(&object), shard::encode(&[directory]))
}

fn contents(definition: Private) -> SnapshotContents {
    let record = |name: &str, shape, root| DiskRecord {
        name: name.into(),
        kind: shape,
        size_bytes: 10 << 30,
        used_bytes: 5_000_000_000,
        grid_offset_bytes: 0,
        root,
    };
    SnapshotContents {
        machine: "web".into(),
        taken_at_unix_ms: 1_700_000_000_000,
        tags: vec!["nightly".into()],
        disks: vec![record("vda", RecordKind::Disk, id(1)), record("dump", RecordKind::Stream, id(2))],
        definition,
        parent: Some(SnapshotId::from(Ulid::from_bytes([7; 16]))),
        consistency: Consistency::FileSystem,
        stats: BackupStats { read_bytes: 1, new_bytes: 2, stored_bytes: 3, ..BackupStats::default() },
        stored_as_failover: false,
    }
}

/// Records whose fields are not all in the vectors above, since they are left out at their default.
fn records(keys: &Keys) -> Value {
    let definition =
        Private::encrypt_with(keys, b"<domain/>", Cipher::Aes256Gcm, &[6; 32]).expect("encrypted");
    let consistency = |consistency| hex(&packed::body(&consistency));
    let stands_in =
        SnapshotContents { stored_as_failover: true, parent: None, ..contents(definition.clone()) };
    let mut with_phase = contents(definition);
    with_phase.disks[0].grid_offset_bytes = 3584;
    with_phase.stats = BackupStats {
        read_bytes: 1,
        new_bytes: 2,
        stored_bytes: 3,
        segments_read: 4,
        segments_reused: 5,
        zero_segments: 6,
        unchanged_segments_checked: 7,
        dirty_bitmaps_rejected: 8,
    };
    json!({
        "snapshot that stands in": hex(&packed::body(&stands_in)),
        "snapshot of a disk with phase 3584": hex(&packed::body(&with_phase)),
        "consistency": [
            consistency(Consistency::Crash),
            consistency(Consistency::FileSystem),
            consistency(Consistency::Application),
            consistency(Consistency::PoweredOff),
        ],
        "hold": hex(&holds::encode("evidence", 1_700_000_000_000)),
        "condemned packs": hex(&condemned::encode_packs(&[PackId::from([9; 16]), PackId::from([8; 16])])),
        "leases waited for": hex(&condemned::encode_waits(&[Ulid::from_bytes([5; 16])])),
        "times of objects": hex(&object_times::encode(&[([9; 16], 1_700_000_000_000)].into())),
    })
}

/// The name of every object in the store.
fn object_names() -> Value {
    let (id, repository, pack) = (Ulid::from_bytes([5; 16]), RepositoryId::known(), PackId::from([9; 16]));
    let entry = |folder| names::entry(folder, id).to_string();
    let lease = [lease::BEGUN, lease::BEAT, lease::DEAD, lease::CLOCK];
    let lease = lease.map(|part| lease::part(id, part).to_string());
    let condemned = [condemned::PACKS, condemned::WAITS].map(|part| condemned::part(id, part).to_string());
    json!({
        "config": names::config().to_string(),
        "key roster 7": names::roster(repository, 7).to_string(),
        "data pack": names::pack(PackKind::Data, pack).to_string(),
        "meta pack": names::pack(PackKind::Meta, pack).to_string(),
        "damaged pack": names::quarantined(pack).to_string(),
        "entries": [
            entry(names::INDEX), entry(names::SNAPSHOTS), entry(names::HOLDS), entry(names::VERIFIED),
            entry(names::LOCKED), entry(names::PROBE),
        ],
        "lease": lease,
        "condemned": condemned,
    })
}

/// The config of a store that can do everything, locked in either mode.
fn locked_config(keys: &Keys, config: &Config, mode: LockMode) -> Value {
    let store = crate::Capabilities {
        create_if_absent: true,
        lists_what_was_written: true,
        object_lock: true,
        checksums: true,
        deletes_many: true,
    };
    let object_lock = Some(ObjectLock::new(mode, 30).expect("a month"));
    hex(&Config { store, object_lock, ..config.clone() }.encode(keys).expect("signed"))
}

fn vectors() -> BTreeMap<String, Value> {
    let keys = Keys::known();
    let mut all = BTreeMap::new();
    let mut add = |name: &str, value: Value| assert!(all.insert(name.to_owned(), value).is_none(), "{name}");
    for kind in BlobKind::ALL {
        add(&format!("id of a {}", kind.name()), json!(keys.id(kind, b"content").to_string()));
    }
    add("chunker seed", json!(keys.chunker_seed()));
    add("cuts", cuts(&keys));
    add("aligned cuts", aligned_cuts(&keys));
    add("recipes", recipes());
    add(
        "text of a blob that does not compress",
        hex(&blob::encode(&noise("one", 100), Compression::default(), 0)),
    );
    for (name, cipher) in CIPHERS {
        let (data, shard) = pack(&keys, PackKind::Data, cipher);
        add(&format!("data pack by {name}"), data);
        add(&format!("index shard of it by {name}"), hex(&shard));
        add(&format!("meta pack by {name}"), pack(&keys, PackKind::Meta, cipher).0);
        let definition = Private::encrypt_with(&keys, b"<domain/>", cipher, &[6; 32]).expect("encrypted");
        let body = packed::body(&contents(definition));
        let name_in_store = names::entry(names::SNAPSHOTS, Ulid::from_bytes([5; 16]));
        let seed = ObjectEncryptionParams { salt: [4; 32], cipher };
        add(&format!("snapshot by {name}"), hex(&body));
        let object = encrypted::encrypt_with(&keys, &name_in_store, body, &seed);
        add(&format!("sealed snapshot by {name}, {name_in_store}"), hex(&object));
    }
    let config = Config {
        repository: RepositoryId::known(),
        created_unix_ms: 1_700_000_000_000,
        chunking: Chunking::default(),
        stream_chunking: StreamChunking::default(),
        store: crate::Capabilities {
            create_if_absent: true,
            lists_what_was_written: true,
            ..Default::default()
        },
        object_lock: None,
    };
    add("config", hex(&config.encode(&keys).expect("signed")));
    add("config with a governance lock", locked_config(&keys, &config, LockMode::Governance));
    add("config with a compliance lock", locked_config(&keys, &config, LockMode::Compliance));
    add("records", records(&keys));
    add("names of objects", object_names());
    add("key of the local cache", hex(&keys.cache_key()));
    add("grant of a full slot", hex(&keys.granted()));
    let aligned = Config { chunking: Chunker::AlignedCdc.into(), ..config };
    add("config with aligned cuts", hex(&aligned.encode(&keys).expect("signed")));
    all
}

#[test]
fn what_is_written_is_byte_for_byte_version_1() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1/vectors.json");
    let mut golden: BTreeMap<String, Value> = match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).expect("the vectors are JSON"),
        Err(_) => BTreeMap::new(),
    };
    let found = vectors();
    if std::env::var_os("LOAM_WRITE_SAMPLES").is_some() {
        for (name, value) in &found {
            golden.entry(name.clone()).or_insert_with(|| value.clone());
        }
        let text = serde_json::to_string_pretty(&golden).expect("plain data") + "\n";
        std::fs::write(&path, text).expect("written");
    }
    for (name, value) in &golden {
        assert_eq!(found.get(name), Some(value), "{name}");
    }
    let missing: Vec<_> = found.keys().filter(|name| !golden.contains_key(*name)).collect();
    assert!(missing.is_empty(), "run with LOAM_WRITE_SAMPLES=1 to keep these for ever: {missing:?}");
}
