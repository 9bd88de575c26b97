//! What version 1 wrote stays readable.
//!
//! `tests/golden/v1` holds a repository as it was written when the format became stable. It is written once, by
//! `LOAM_WRITE_SAMPLES=1` where it is missing, and never again: code that cannot read it is wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use backup_repository::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::support::*;

const EAGER: CollectSettings = CollectSettings {
    pack_age_min: Duration::ZERO,
    lease_timeout: Duration::ZERO,
    rewrite_below_percent: 101,
    rewrite_bytes_max: u64::MAX,
    reencrypt_old_epochs: true,
};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

/// Copies a folder; secrets must not be writable by others, which a checkout does not promise.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::write(&to, fs::read(&from).unwrap()).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

struct Place {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    /// A copy of the golden repository.
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v1");
        copy(&golden(), &path);
        Place { _folder: folder, path }
    }

    fn secrets(&self) -> [Secret; 3] {
        [
            Secret::key_file(&self.path.join("key")).unwrap(),
            Secret::passphrase_file(&self.path.join("words")).unwrap(),
            Secret::identity_file(&self.path.join("identity")).unwrap(),
        ]
    }

    async fn open(&self, secret: Secret) -> Repository {
        let url = format!("file://{}/store", self.path.display()).parse().unwrap();
        let store = StoreSettings::new(url).open().unwrap();
        let settings = EngineSettings {
            cache: Some(self.path.join("cache")),
            dirty_bitmap_check: DirtyBitmapCheck::Off,
            ..Default::default()
        };
        Repository::open(store, secret, settings).await.unwrap()
    }

    fn draft(&self) -> Draft {
        serde_json::from_slice(&fs::read(self.path.join("draft.json")).unwrap()).unwrap()
    }
}

fn expected() -> Value {
    serde_json::from_slice(&fs::read(golden().join("expected.json")).unwrap()).unwrap()
}

async fn bytes_of(repository: &Repository, snapshot: &Snapshot, disk: &DiskRecord) -> Vec<u8> {
    let mut bytes = Vec::new();
    let all = 0..disk.size_bytes;
    let (progress, cancel) = (Arc::default(), Cancel::new());
    repository.restore_stream(snapshot, &disk.name, all, &mut bytes, &progress, &cancel).await.unwrap();
    bytes
}

/// The contents of a repository, in a form that a person can compare.
async fn described(repository: &Repository) -> Value {
    let mut snapshots = Vec::new();
    for snapshot in repository.snapshots().await.unwrap() {
        let mut disks = Vec::new();
        for disk in &snapshot.contents.disks {
            let sum = sha256(&bytes_of(repository, &snapshot, disk).await);
            disks.push(json!({ "name": disk.name, "shape": disk.kind, "size_bytes": disk.size_bytes,
                "used_bytes": disk.used_bytes, "sha256": sum }));
        }
        let SnapshotContents { machine, taken_at_unix_ms, tags, parent, consistency, stats, .. } =
            &snapshot.contents;
        let definition = String::from_utf8(repository.definition(&snapshot).unwrap()).unwrap();
        snapshots.push(json!({ "id": snapshot.id, "machine": machine, "taken_at_unix_ms": taken_at_unix_ms,
            "tags": tags, "disks": disks, "definition": definition, "parent": parent,
            "consistency": consistency, "stats": stats }));
    }
    let keys = repository.keys().await.unwrap();
    let key = |key: &KeySlot| json!({ "id": key.id, "label": key.label, "role": key.role, "kind": key.kind });
    json!({ "id": repository.id().to_string(), "keys": keys.iter().map(key).collect::<Value>(), "snapshots": snapshots })
}

async fn sound(repository: &Repository) {
    let report = repository.verify(VerifyScope::Everything, &Arc::default(), &Cancel::new()).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
}

/// A disk of little substance: noise, text that compresses, holes, and a size that is a multiple of nothing.
fn small_disk(rng: &mut StdRng) -> Vec<u8> {
    let mut disk = vec![0; 9 * MIB + 777];
    rng.fill_bytes(&mut disk[4096..50_000]);
    for (index, byte) in disk[5 * MIB..5 * MIB + 90_000].iter_mut().enumerate() {
        *byte = b"it was the best of times, it was the worst of times\n"[index * index % 51];
    }
    rng.fill_bytes(&mut disk[9 * MIB..]);
    disk
}

/// Writes everything that version 1 has: keys of every kind, two epochs, two ciphers, a parent, a stream, a list of
/// condemned packs that waits for a draft.
async fn write(path: &Path) {
    let mut rng = StdRng::seed_from_u64(1);
    fs::create_dir_all(path).unwrap();
    let mut key = [0; 32];
    rng.fill_bytes(&mut key);
    s3::write_secret(&path.join("key"), &hex::encode(key));
    s3::write_secret(&path.join("words"), "what version 1 wrote\n");
    let identity = Identity::generate();
    s3::write_secret(&path.join("identity"), &identity.file());
    let settings = StoreSettings::new(format!("file://{}/store", path.display()).parse().unwrap());
    let engine = EngineSettings {
        cache: Some(path.join("cache")),
        dirty_bitmap_check: DirtyBitmapCheck::Off,
        ..Default::default()
    };
    let secret = Secret::passphrase_file(&path.join("words")).unwrap();
    let store = settings.open_for_init().unwrap();
    let repository = Repository::init(store, secret, cheap(), engine).await.unwrap();
    let key = NewKey::Secret(Secret::key_file(&path.join("key")).unwrap(), cheap());
    repository.add_key("a key file", Role::Full, key).await.unwrap();
    let recipient = NewKey::Recipient(identity.recipient());
    repository.add_key("somebody", Role::Full, recipient).await.unwrap();
    let host = NewKey::Recipient(Identity::generate().recipient());
    repository.add_key("a host", Role::WriteOnly, host).await.unwrap();

    let mut disk = MemoryDisk::tracked(small_disk(&mut rng));
    let forgotten = MemoryDisk::new(disk.bytes[4096..45_000].iter().rev().copied().collect());
    let forgotten = back_up(&repository, request(&forgotten)).await;
    let first = back_up(&repository, request(&disk)).await;
    repository.rotate_keys().await.unwrap();
    backup_repository::keys::disregard_aes_instructions();
    disk.write(5 * MIB + 50_000, b"something new");
    let dump = disk.bytes[5 * MIB..5 * MIB + 70_000].to_vec();
    let mut second = BackupRequest {
        taken_at_unix_ms: 1_700_000_100_000,
        parent: Some(first.id),
        consistency: Consistency::FileSystem,
        ..request(&disk)
    };
    second.streams.push(("dump".into(), Box::new(std::io::Cursor::new(dump))));
    back_up(&repository, second).await;
    // Its lease makes the list of what is condemned wait.
    disk.write(0, b"a draft");
    let draft = BackupRequest { taken_at_unix_ms: 1_700_000_200_000, ..request(&disk) };
    let draft = repository.copy(draft, &Arc::default(), &Cancel::new()).await.unwrap();
    fs::write(path.join("draft.json"), serde_json::to_vec(&draft).unwrap()).unwrap();
    repository.forget(forgotten.id).await.unwrap();
    let long_leases =
        CollectSettings { lease_timeout: Duration::from_secs(3600), rewrite_bytes_max: 0, ..EAGER };
    let report = repository.collect(long_leases, &Arc::default(), &Cancel::new()).await.unwrap();
    assert!(report.packs_waiting > 0, "{report:?}");
    let expected = serde_json::to_string_pretty(&described(&repository).await).unwrap() + "\n";
    fs::write(path.join("expected.json"), expected).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_version_1_wrote_is_read_for_ever() {
    if std::env::var_os("LOAM_WRITE_SAMPLES").is_some() && !golden().join("store").exists() {
        write(&golden()).await;
    }
    let place = Place::new();
    for secret in place.secrets() {
        let repository = place.open(secret).await;
        assert_eq!(described(&repository).await, expected());
        sound(&repository).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_version_1_began_is_carried_on() {
    let place = Place::new();
    let [secret, ..] = place.secrets();
    let repository = place.open(secret).await;
    let before = repository.snapshots().await.unwrap();
    let newest = &before[before.len() - 1];
    let mut disk = MemoryDisk::new(bytes_of(&repository, newest, &newest.contents.disks[0]).await);
    // Its cuts and ids are those of today.
    let again = back_up(&repository, request(&disk)).await;
    assert_eq!(again.contents.stats.new_bytes, 0);
    assert_eq!(again.contents.disks[0].root, newest.contents.disks[0].root);
    repository.forget(again.id).await.unwrap();
    // The draft is sealed, and the list that waited for it is worked off.
    let draft = repository.seal(&place.draft(), SnapshotId::generate()).await.unwrap();
    disk.write(0, b"a draft");
    assert!(bytes_of(&repository, &draft, &draft.contents.disks[0]).await == disk.bytes);
    repository.forget(draft.id).await.unwrap();
    let report = repository.collect(EAGER, &Arc::default(), &Cancel::new()).await.unwrap();
    assert!(report.packs_deleted > 0 && report.packs_rewritten > 0, "{report:?}");
    assert_eq!(report.packs_waiting, 0, "{report:?}");
    repository.rebuild_index(&Arc::default()).await.unwrap();
    sound(&repository).await;
    assert_eq!(described(&repository).await, expected());
}

#[test]
fn a_reader_written_from_the_pages_alone_reads_what_version_1_wrote() {
    let place = Place::new();
    let store = place.path.join("store");
    let read = python::parsed(&python::read(&store, "--key-file", &place.path.join("key")));
    for (read, expected) in
        std::iter::zip(read["snapshots"].as_array().unwrap(), expected()["snapshots"].as_array().unwrap())
    {
        assert_eq!(read["id"], expected["id"]);
        assert_eq!(read["stats"], expected["stats"]);
        for (read, expected) in
            std::iter::zip(read["disks"].as_array().unwrap(), expected["disks"].as_array().unwrap())
        {
            assert_eq!(read["sha256"], expected["sha256"]);
        }
    }
}
