//! How an image comes to be.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_repository::restore::{ImageError, partial_path};
use backup_repository::*;

use crate::support::*;

struct Restorable {
    folder: tempfile::TempDir,
    repository: Repository,
    snapshot: Snapshot,
    bytes: Vec<u8>,
}

impl Restorable {
    async fn new() -> Restorable {
        let mut bytes = disk(&mut seeded(), 24 * MIB);
        bytes[4 * MIB..20 * MIB].fill(0);
        let repository = new_repository(memory()).await;
        let snapshot = back_up(&repository, request(&MemoryDisk::new(bytes.clone()))).await;
        Restorable { folder: tempfile::tempdir().unwrap(), repository, snapshot, bytes }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("vda.raw")
    }

    async fn restore(&self, disk: &str) -> Result<(), RestoreError> {
        let (progress, cancel) = (Arc::default(), Cancel::new());
        self.repository.restore_disk(&self.snapshot, disk, &self.path(), &progress, &cancel).await
    }

    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn lock(path: &Path) -> File {
    let file = File::create(path).unwrap();
    file.lock().unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_stay_holes_and_only_the_image_stays_behind() {
    let restorable = Restorable::new().await;
    restorable.restore("vda").await.unwrap();
    assert_eq!(restorable.files(), ["vda.raw"]);
    assert!(fs::read(restorable.path()).unwrap() == restorable.bytes);
    let allocated = fs::metadata(restorable.path()).unwrap().blocks() * 512;
    assert!(allocated <= 9 * MIB as u64, "{allocated} bytes are allocated");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_exists_is_never_overwritten() {
    let restorable = Restorable::new().await;
    fs::write(restorable.path(), "precious").unwrap();
    let refused = restorable.restore("vda").await.unwrap_err();
    assert!(matches!(refused, RestoreError::Image(ImageError::Exists { .. })), "{refused}");
    assert_eq!(fs::read(restorable.path()).unwrap(), b"precious");
    assert_eq!(restorable.files(), ["vda.raw"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_interrupted_restore_left_is_continued_and_a_running_one_is_not_disturbed() {
    let restorable = Restorable::new().await;
    let partial = partial_path(&restorable.path());
    let living = lock(&partial);
    let refused = restorable.restore("vda").await.unwrap_err();
    assert!(matches!(refused, RestoreError::Image(ImageError::RestoreRunning { .. })), "{refused}");
    assert!(partial.exists());
    drop(living);
    fs::write(&partial, vec![0xff; 30 * MIB]).unwrap();
    restorable.restore("vda").await.unwrap();
    assert!(fs::read(restorable.path()).unwrap() == restorable.bytes);
    assert_eq!(restorable.files(), ["vda.raw"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_disk_and_a_cancelled_restore_leave_nothing() {
    let restorable = Restorable::new().await;
    let unknown = restorable.restore("vdz").await.unwrap_err();
    assert!(matches!(unknown, RestoreError::NoSuchDisk { .. }), "{unknown}");
    let cancel = Cancel::new();
    cancel.cancel();
    let path = restorable.path();
    let cancelled = restorable
        .repository
        .restore_disk(&restorable.snapshot, "vda", &path, &Arc::default(), &cancel)
        .await
        .unwrap_err();
    assert!(matches!(cancelled, RestoreError::Cancelled));
    assert_eq!(restorable.files(), Vec::<String>::new());
}
