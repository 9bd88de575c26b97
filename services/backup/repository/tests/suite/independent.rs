//! A reader in another language, written from the pages of the format alone, reads everything back.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use backup_repository::*;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::support::*;

/// More than one page of segments, nearly all of it holes.
const WIDE_DISK_BYTES: u64 = 4 * 1024 * MIB as u64 + 9 * MIB as u64 + 4711;

/// A repository in a folder and what its snapshots must hold.
struct Made {
    folder: tempfile::TempDir,
    snapshots: Vec<(SnapshotId, Vec<(&'static str, String)>)>,
}

impl Made {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn store(&self) -> PathBuf {
        self.path("store")
    }

    fn read_with(&self, secret: &str, file: &str) -> Output {
        python::read(&self.store(), secret, &self.path(file))
    }
}

async fn opened(folder: &Path, secret: Secret) -> Repository {
    let settings = StoreSettings::new(format!("file://{}/store", folder.display()).parse().unwrap());
    Repository::open(settings.open().unwrap(), secret, EngineSettings::default()).await.unwrap()
}

/// A sparse file with something on its first and last pages.
fn wide_disk(rng: &mut StdRng, path: &Path) -> String {
    let file = std::fs::File::create(path).unwrap();
    file.set_len(WIDE_DISK_BYTES).unwrap();
    for at in [70_000, 5 * MIB as u64 + 17, WIDE_DISK_BYTES - 100_001] {
        let mut noise = vec![0; 100_001];
        rng.fill_bytes(&mut noise);
        file.write_all_at(&noise, at).unwrap();
    }
    sha256_of_file(path)
}

/// What is special about a repository.
#[derive(PartialEq, Eq)]
enum Kind {
    /// A disk of more than one page. It takes a while to hash its holes.
    Wide,
    /// Cuts on the grid of a disk that was partitioned as of old.
    Aligned,
}

/// All that a repository can hold: two ciphers, two epochs, keys of every kind, a parent, holes, pages, a stream.
async fn make(kind: Kind) -> Made {
    let mut rng = seeded();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    s3::write_secret(&path("words"), "correct horse\r\n");
    let mut key = [0; 48];
    rng.fill_bytes(&mut key);
    s3::write_secret(&path("key"), &hex::encode(key));
    let (identity, writer) = (Identity::generate(), Identity::generate());
    s3::write_secret(&path("identity"), &identity.file());
    s3::write_secret(&path("writer"), &writer.file());

    let settings = StoreSettings::new(format!("file://{}", path("store").display()).parse().unwrap());
    let store = settings.open_for_init().unwrap();
    let repository = match kind {
        Kind::Wide => new_repository(store).await,
        Kind::Aligned => new_aligned_repository(store).await,
    };
    let key = NewKey::Secret(Secret::key_file(&path("key")).unwrap(), cheap());
    repository.add_key("a key file", Role::Full, key).await.unwrap();
    let recipient = NewKey::Recipient(identity.recipient());
    repository.add_key("a recipient", Role::Full, recipient).await.unwrap();
    let recipient = NewKey::Recipient(writer.recipient());
    repository.add_key("the host", Role::WriteOnly, recipient).await.unwrap();

    let mut disk = MemoryDisk::tracked(disk(&mut rng, 21 * MIB + 4711));
    disk.bytes[8 * MIB..14 * MIB].fill(0);
    partition(&mut disk.bytes, 63);
    let mut dump = vec![0; 9 * MIB + 1];
    rng.fill_bytes(&mut dump[..5 * MIB]);
    let mut first = request(&disk);
    let mut disks = vec![("vda", sha256(&disk.bytes))];
    if kind == Kind::Wide {
        disks.push(("wide", wide_disk(&mut rng, &path("wide"))));
        first.disks.push(("wide".into(), Box::new(RawFile::open(&path("wide")).unwrap())));
    }
    disks.push(("dump", sha256(&dump)));
    first.streams.push(("dump".into(), Box::new(std::io::Cursor::new(dump.clone()))));
    let first = back_up(&repository, first).await;
    assert_eq!(
        first.disk("vda").unwrap().grid_offset_bytes,
        if kind == Kind::Aligned { 63 % 8 * 512 } else { 0 }
    );
    let mut snapshots = vec![(first.id, disks)];

    // The second comes from a host that can only write, in another epoch, and has no instructions for AES.
    repository.rotate_keys().await.unwrap();
    backup_repository::keys::disregard_aes_instructions();
    let host = opened(folder.path(), Secret::identity_file(&path("writer")).unwrap()).await;
    disk.write(3 * MIB + 5, b"something new");
    disk.write(9 * MIB, &dump[..200_000]);
    let empty = ("empty".into(), MemoryDisk::new(Vec::new()).boxed());
    let mut second = BackupRequest { parent: Some(first.id), ..request(&disk) };
    second.disks.push(empty);
    let second = back_up(&host, second).await;
    assert!(second.contents.stats.segments_reused > 0, "{:?}", second.contents.stats);
    snapshots.push((second.id, vec![("vda", sha256(&disk.bytes)), ("empty", sha256(&[]))]));
    Made { folder, snapshots }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_written_from_the_pages_alone_reads_everything_back() {
    let made = make(Kind::Wide).await;
    let by_words = python::parsed(&made.read_with("--passphrase-file", "words"));
    assert_eq!(by_words["epochs"], json!([1, 2]));
    let packs = by_words["packs"].as_array().unwrap();
    for (kind, cipher, epoch) in [
        ("data", "aes-256-gcm", 1),
        ("meta", "aes-256-gcm", 1),
        ("data", "chacha20-poly1305", 2),
        ("meta", "chacha20-poly1305", 2),
    ] {
        let pack = json!({ "kind": kind, "cipher": cipher, "epoch": epoch });
        assert!(packs.contains(&pack), "{pack} is missing in {packs:?}");
    }
    let snapshots = by_words["snapshots"].as_array().unwrap();
    assert_eq!(snapshots.len(), made.snapshots.len());
    for (found, (id, disks)) in snapshots.iter().zip(&made.snapshots) {
        assert_eq!(found["id"], json!(id));
        assert_eq!(found["definition"], "<domain/>");
        let found = found["disks"].as_array().unwrap();
        let found: Vec<_> = found.iter().map(|d| (d["name"].clone(), d["sha256"].clone())).collect();
        let disks: Vec<_> = disks.iter().map(|(name, sum)| (json!(name), json!(sum))).collect();
        assert_eq!(found, disks);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reader_is_let_in_by_every_kind_of_key_and_reads_no_disk_with_a_write_only_one() {
    let made = make(Kind::Aligned).await;
    let by_words = python::parsed(&made.read_with("--passphrase-file", "words"));
    for (secret, file) in [("--key-file", "key"), ("--identity-file", "identity")] {
        assert_eq!(python::parsed(&made.read_with(secret, file)), by_words, "{file}");
    }
    let by_writer = python::parsed(&made.read_with("--identity-file", "writer"));
    assert_eq!((&by_writer["can_read"], &by_writer["packs"]), (&json!(false), &by_words["packs"]));
    assert_eq!(by_writer["snapshots"][1]["disks"][0]["sha256"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reader_trusts_nothing_that_was_changed() {
    let made = make(Kind::Aligned).await;
    let mut files = Vec::new();
    files_in(&made.store(), &mut files);
    let (mut checked, read) = (0, ["data", "meta", "snapshots", "keys", "config"]);
    for file in files {
        if !read.iter().any(|folder| file.starts_with(made.store().join(folder))) {
            continue;
        }
        let whole = std::fs::read(&file).unwrap();
        let mut changed = whole.clone();
        let at = changed.len() * 2 / 3;
        changed[at] ^= 1;
        std::fs::write(&file, &changed).unwrap();
        let output = made.read_with("--key-file", "key");
        assert!(!output.status.success(), "byte {at} of {} was changed", file.display());
        std::fs::write(&file, &whole).unwrap();
        checked += 1;
    }
    assert!(checked >= 8, "config, roster, snapshots and packs were changed: {checked}");
}
