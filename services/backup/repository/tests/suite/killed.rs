//! Restores that are killed at any moment, and run again.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_repository::restore::{RestoreReport, RestoreRequest, RestoreTarget, partial_path};
use backup_repository::*;
use rand::RngExt;
use rand::rngs::StdRng;

use crate::support::*;

const DISK_BYTES: usize = 48 * MIB;
/// What the test below restores, when this binary runs itself.
const ORDER: &str = "LOAM_TEST_RESTORE";
const KILLS: usize = 6;

fn store(folder: &Path) -> StoreSettings {
    StoreSettings::new(format!("file://{}/store", folder.display()).parse().unwrap())
}

fn target(kind: &str, folder: &Path) -> RestoreTarget {
    match kind {
        "raw" => RestoreTarget::NewRaw { path: folder.join("raw") },
        "qcow2" => RestoreTarget::NewQcow2 { path: folder.join("qcow2") },
        _ => RestoreTarget::existing(&folder.join("existing")),
    }
}

/// Where the restore writes until it is done.
fn written(kind: &str, folder: &Path) -> PathBuf {
    let path = folder.join(kind);
    if kind == "existing" { path } else { partial_path(&path) }
}

async fn restore(kind: &str, folder: &Path) -> Result<RestoreReport, RestoreError> {
    let repository = reopened(store(folder).open().unwrap()).await;
    let snapshot = repository.find(&Selector::Latest { machine: "web".into() }).await.unwrap();
    let request = RestoreRequest::new("vda", target(kind, folder));
    repository.restore(&snapshot, &request, &Arc::default(), &Cancel::new()).await
}

/// The part of the one who is killed. Without an order there is nothing to do.
#[tokio::test(flavor = "multi_thread")]
async fn the_child_does_what_it_is_ordered() {
    if let Ok(order) = std::env::var(ORDER) {
        let (kind, folder) = order.split_once('|').unwrap();
        restore(kind, Path::new(folder)).await.unwrap();
    }
}

/// Restores in a child, which is killed when about so much has been written. Returns whether it was in time.
fn restore_and_kill(kind: &str, folder: &Path, when_bytes: u64) -> bool {
    let mut child: Child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::the_child_does_what_it_is_ordered"])
        .env(ORDER, format!("{kind}|{}", folder.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let path = written(kind, folder);
    let give_up = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "the child failed by itself");
            return false;
        }
        if fs::metadata(&path).is_ok_and(|meta| meta.blocks() * 512 >= when_bytes) {
            child.kill().unwrap();
            return !child.wait().unwrap().success();
        }
        assert!(Instant::now() < give_up, "the child neither ends nor writes");
        std::thread::sleep(Duration::from_micros(200));
    }
}

async fn prepare(rng: &mut StdRng) -> (tempfile::TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let bytes = disk(rng, DISK_BYTES);
    let repository = new_repository(store(folder.path()).open_for_init().unwrap()).await;
    back_up(&repository, request(&MemoryDisk::new(bytes.clone()))).await;
    (folder, bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raw_restore_that_is_killed_is_continued_and_never_shows_half_an_image() {
    let mut rng = seeded();
    let (folder, bytes) = prepare(&mut rng).await;
    let image = folder.path().join("raw");
    let mut killed = 0;
    for _ in 0..KILLS {
        let has = fs::metadata(partial_path(&image)).map_or(0, |meta| meta.blocks() * 512);
        if !restore_and_kill("raw", folder.path(), has + rng.random_range(1..6 * MIB as u64)) {
            break;
        }
        killed += 1;
        assert!(!image.exists(), "it was killed before it was whole");
    }
    assert!(killed > 0, "no restore was killed in time");
    if !image.exists() {
        let report = restore("raw", folder.path()).await.unwrap();
        assert!(report.kept_bytes > report.zeroed_bytes, "what was there is kept: {report:?}");
        assert!(report.written_bytes < DISK_BYTES as u64, "{report:?}");
    }
    assert!(fs::read(&image).unwrap() == bytes);
    assert!(!partial_path(&image).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_into_a_disk_that_is_killed_can_be_run_again_and_does_what_is_left() {
    let mut rng = seeded();
    let (folder, bytes) = prepare(&mut rng).await;
    let image = folder.path().join("existing");
    File::create(&image).unwrap().set_len(DISK_BYTES as u64).unwrap();
    let mut killed = 0;
    for _ in 0..KILLS {
        let has = fs::metadata(&image).unwrap().blocks() * 512;
        if !restore_and_kill("existing", folder.path(), has + rng.random_range(1..6 * MIB as u64)) {
            break;
        }
        killed += 1;
    }
    assert!(killed > 0, "no restore was killed in time");
    restore("existing", folder.path()).await.unwrap();
    assert!(fs::read(&image).unwrap() == bytes);
    let again = restore("existing", folder.path()).await.unwrap();
    assert_eq!(again.kept_bytes, DISK_BYTES as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qcow2_restore_that_is_killed_leaves_no_server_and_can_be_run_again() {
    qemu::must_be_there();
    let mut rng = seeded();
    let (folder, bytes) = prepare(&mut rng).await;
    let image = folder.path().join("qcow2");
    let mut killed = 0;
    for _ in 0..KILLS {
        // Its header alone takes about 200 KiB.
        let when_bytes = rng.random_range(0..DISK_BYTES as u64 / 3);
        if !restore_and_kill("qcow2", folder.path(), when_bytes) {
            break;
        }
        killed += 1;
        assert!(!image.exists(), "it was killed before it was whole");
    }
    assert!(killed > 0, "no restore was killed in time");
    if !image.exists() {
        restore("qcow2", folder.path()).await.unwrap();
    }
    let partial = partial_path(&image);
    eventually("no server serves any more", || !anybody_names(partial.to_str().unwrap())).await;
    assert!(!partial.exists());
    let raw = folder.path().join("expected");
    fs::write(&raw, &bytes).unwrap();
    let (raw, image) = (raw.to_str().unwrap(), image.to_str().unwrap());
    qemu::run("qemu-img", &["compare", "-f", "raw", "-F", "qcow2", raw, image]);
}

/// Whether a process has this text in its arguments.
fn anybody_names(word: &str) -> bool {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok()).any(|line| {
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("qemu-nbd") && line.contains(word)
    })
}
