//! What happens to stored bytes is found out, and never given back as if it were the disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_repository::*;
use object_store::memory::InMemory;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::support::fake_store::FakeStore;
use crate::support::*;

/// A repository in a folder with one snapshot of one disk.
struct Stored {
    folder: tempfile::TempDir,
    disk: MemoryDisk,
    snapshot: Snapshot,
}

impl Stored {
    async fn new(rng: &mut StdRng) -> Stored {
        let folder = tempfile::tempdir().unwrap();
        let disk = MemoryDisk::new(disk(rng, 7 * MIB));
        let repository = new_repository(store(&folder.path().join("r"))).await;
        // Two backups make two packs of each kind.
        back_up(&repository, request(&MemoryDisk::new(disk.bytes[..3 * MIB].to_vec()))).await;
        let snapshot = back_up(&repository, request(&disk)).await;
        Stored { folder, disk, snapshot }
    }

    async fn open(&self) -> Repository {
        reopened(store(&self.folder.path().join("r"))).await
    }

    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        collect_files(&self.folder.path().join("r").join(folder), &mut files);
        files.sort();
        assert!(!files.is_empty(), "{folder} holds something");
        files
    }

    /// Restores; an error is fine, wrong bytes are not.
    async fn restores_rightly_or_not_at_all(&self) -> bool {
        let repository = self.open().await;
        let path = self.folder.path().join("out.raw");
        let outcome =
            repository.restore_disk(&self.snapshot, "vda", &path, &Arc::default(), &Cancel::new()).await;
        match outcome {
            Ok(()) => {
                assert!(fs::read(&path).unwrap() == self.disk.bytes, "wrong bytes were restored");
                fs::remove_file(&path).unwrap();
                true
            }
            Err(_) => {
                assert!(!path.exists(), "no image without all of its bytes");
                assert!(!backup_repository::restore::partial_path(&path).exists());
                false
            }
        }
    }

    async fn verified(&self, scope: VerifyScope<'_>) -> VerifyReport {
        self.open().await.verify(scope, &Arc::default(), &Cancel::new()).await.unwrap()
    }
}

fn store(path: &Path) -> Store {
    StoreSettings::new(format!("file://{}", path.display()).parse().unwrap()).open_for_init().unwrap()
}

fn collect_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { collect_files(&path, files) } else { files.push(path) }
    }
}

fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 0x40;
    fs::write(file, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_any_pack_is_found() {
    let mut rng = seeded();
    let stored = Stored::new(&mut rng).await;
    assert!(stored.verified(VerifyScope::Everything).await.is_sound());
    assert!(stored.verified(VerifyScope::Snapshot(&stored.snapshot)).await.is_sound());
    for kind in ["data", "meta"] {
        for pack in stored.files(kind) {
            let bytes = fs::read(&pack).unwrap().len();
            for at in [0, rng.random_range(0..bytes), bytes - 65, bytes - 60, bytes - 1] {
                flip(&pack, at);
                let report = stored.verified(VerifyScope::Everything).await;
                assert!(!report.is_sound(), "{} byte {at} of {bytes}", pack.display());
                stored.restores_rightly_or_not_at_all().await;
                flip(&pack, at);
            }
        }
    }
    assert!(stored.verified(VerifyScope::Everything).await.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotten_chunk_is_traced_to_the_disks_that_need_it() {
    let mut rng = seeded();
    let stored = Stored::new(&mut rng).await;
    for pack in stored.files("data") {
        flip(&pack, 100);
    }
    for scope in [VerifyScope::Everything, VerifyScope::Snapshot(&stored.snapshot)] {
        let report = stored.verified(scope).await;
        let traced = report.problems.iter().any(|problem| {
            matches!(problem, Problem::Disk { snapshot, disk, .. }
                if *snapshot == stored.snapshot.id && disk == "vda")
        });
        assert!(traced, "{report:?}");
        assert!(report.problems.iter().any(|problem| matches!(problem, Problem::Blob { .. })));
    }
    assert!(!stored.restores_rightly_or_not_at_all().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_snapshots_share_is_followed_once() {
    let mut rng = seeded();
    let objects = Arc::new(InMemory::new());
    let repository = new_repository(Store::new(objects.clone())).await;
    let mut disk = MemoryDisk::new(disk(&mut rng, 80 * MIB));
    back_up(&repository, request(&disk)).await;
    // What is read beside the packs themselves.
    let recipe_bytes = async || {
        let counting = Arc::new(FakeStore::counting(objects.clone()));
        let verifier = opened_with(Store::new(counting.clone()), None).await;
        let (before, progress) = (counting.requests().read_bytes, Arc::<Progress>::default());
        let report = verifier.verify(VerifyScope::Everything, &progress, &Cancel::new()).await.unwrap();
        assert!(report.is_sound(), "{report:?}");
        counting.requests().read_bytes - before - progress.read().done_bytes
    };
    let one = recipe_bytes().await;
    let days = 20;
    for day in 0..days {
        disk.write(day * 4 * MIB, &[day as u8 + 1; 1000]);
        back_up(&repository, request(&disk)).await;
    }
    let each = (recipe_bytes().await - one) / days as u64;
    println!("one snapshot {one} bytes, each more {each}");
    assert!(each < one / 4, "of each, what changed: {one} and {each}");
}

#[tokio::test(flavor = "multi_thread")]
async fn truncated_swapped_and_missing_packs_are_found() {
    let mut rng = seeded();
    let stored = Stored::new(&mut rng).await;
    for kind in ["data", "meta"] {
        let packs = stored.files(kind);
        let whole: Vec<_> = packs.iter().map(|pack| fs::read(pack).unwrap()).collect();
        let swap = |a: &Path, b: &Path| {
            let (x, y) = (fs::read(a).unwrap(), fs::read(b).unwrap());
            fs::write(a, y).unwrap();
            fs::write(b, x).unwrap();
        };
        let damages: [&dyn Fn(); 4] = [
            &|| fs::write(&packs[0], &whole[0][..whole[0].len() / 2]).unwrap(),
            &|| fs::write(&packs[0], []).unwrap(),
            &|| fs::remove_file(&packs[0]).unwrap(),
            &|| swap(&packs[0], &packs[1]),
        ];
        for damage in damages {
            damage();
            let everything = stored.verified(VerifyScope::Everything).await;
            assert!(!everything.is_sound(), "{kind} {everything:?}");
            stored.restores_rightly_or_not_at_all().await;
            for (pack, bytes) in packs.iter().zip(&whole) {
                fs::write(pack, bytes).unwrap();
            }
        }
    }
    assert!(stored.restores_rightly_or_not_at_all().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_under_another_name_is_refused() {
    let stored = Stored::new(&mut seeded()).await;
    let files = stored.files("snapshots");
    fs::copy(&files[0], &files[1]).unwrap();
    let report = stored.verified(VerifyScope::Everything).await;
    assert!(matches!(report.problems[..], [Problem::Snapshot { .. }]), "{report:?}");
    assert!(stored.open().await.snapshots().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_damaged_index_is_rebuilt_from_the_packs() {
    let mut rng = seeded();
    let stored = Stored::new(&mut rng).await;
    for shard in stored.files("index") {
        let bytes = fs::read(&shard).unwrap().len();
        flip(&shard, rng.random_range(0..bytes));
    }
    assert!(!stored.restores_rightly_or_not_at_all().await, "a damaged index is not used");
    let report = stored.open().await.rebuild_index(&Arc::default()).await.unwrap();
    assert_eq!((report.packs, report.unreadable_packs.len()), (4, 0), "{report:?}");
    assert!(stored.restores_rightly_or_not_at_all().await);

    for shard in stored.files("index") {
        fs::remove_file(shard).unwrap();
    }
    assert!(!stored.restores_rightly_or_not_at_all().await);
    stored.open().await.rebuild_index(&Arc::default()).await.unwrap();
    assert!(stored.restores_rightly_or_not_at_all().await);
    assert!(stored.verified(VerifyScope::Everything).await.is_sound());
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_parameters_and_newer_formats_are_refused() {
    let stored = Stored::new(&mut seeded()).await;
    let config = stored.folder.path().join("r/config");
    let bytes = fs::read(&config).unwrap();
    let open = async || {
        let opened = store(&stored.folder.path().join("r"));
        Repository::open(opened, secret(), EngineSettings::default()).await.unwrap_err()
    };
    for (at, what) in [(8, "newer"), (20, "forged"), (0, "foreign")] {
        flip(&config, at);
        let error = open().await;
        let expected = match what {
            "newer" => matches!(
                error,
                OpenError::Damaged { source: Damage::NewerFormatVersion { found: 65, .. }, .. }
            ),
            "forged" => matches!(error, OpenError::Damaged { source: Damage::NotAuthentic { .. }, .. }),
            _ => matches!(error, OpenError::NotARepository),
        };
        assert!(expected, "{what}: {error:?}");
        fs::write(&config, &bytes).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_folder_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("holiday.jpg"), "sunset").unwrap();
    let open = Repository::open(store(folder.path()), secret(), EngineSettings::default()).await;
    assert!(matches!(open.unwrap_err(), OpenError::NotARepository));
    let init = Repository::init(store(folder.path()), secret(), cheap(), EngineSettings::default()).await;
    assert!(matches!(init.unwrap_err(), OpenError::NotARepository));
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["holiday.jpg"]);
    let missing = StoreSettings::new("file:///nowhere/at/all".parse().unwrap()).open();
    assert!(matches!(missing.unwrap_err(), StoreSettingsError::FolderNotFound { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn into_a_folder_that_lost_its_disk_nothing_is_written() {
    let stored = Stored::new(&mut seeded()).await;
    let repository = stored.open().await;
    let (mounted, away) = (stored.folder.path().join("r"), stored.folder.path().join("away"));
    let draft = repository.copy(request(&stored.disk), &Arc::default(), &Cancel::new()).await.unwrap();
    fs::rename(&mounted, &away).unwrap();
    fs::create_dir(&mounted).unwrap();
    let copied = repository.copy(request(&stored.disk), &Arc::default(), &Cancel::new()).await;
    assert!(matches!(copied.unwrap_err(), CopyDisksError::RepositoryGone(OpenError::NoRepository)));
    let sealed = repository.seal(&draft, SnapshotId::generate()).await;
    assert!(matches!(sealed.unwrap_err(), SealBackupError::RepositoryGone(_)));
    let collected = repository.collect(CollectSettings::default(), &Arc::default(), &Cancel::new()).await;
    assert!(matches!(collected.unwrap_err(), CollectError::RepositoryGone(_)));
    assert!(fs::read_dir(&mounted).unwrap().next().is_none(), "nothing was written");
    fs::remove_dir(&mounted).unwrap();
    fs::rename(&away, &mounted).unwrap();
    repository.seal(&draft, SnapshotId::generate()).await.unwrap();
}
