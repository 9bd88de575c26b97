//! Disks that are full: under the store, under the cache, under what is restored.
//!
//! Each test runs itself again where it may mount: in a mount namespace of its own, on small file systems in memory.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use backup_repository::*;
use nix::unistd::geteuid;
use rand::Rng;

use crate::support::*;

/// Set where the test may mount: the mount point.
const PLACE: &str = "LOAM_TEST_SMALL_DISK";
const FULL: &str = "No space left on device";

const EAGER: CollectSettings = CollectSettings {
    pack_age_min: std::time::Duration::ZERO,
    lease_timeout: std::time::Duration::from_secs(3600),
    rewrite_below_percent: 100,
    rewrite_bytes_max: u64::MAX,
    reencrypt_old_epochs: false,
};

/// Runs a test of this file again, with a file system of `kib` on a folder that only it sees; in there it gives the
/// folder.
fn on_a_small_disk(test: &str, kib: u32) -> Option<PathBuf> {
    if let Some(place) = std::env::var_os(PLACE) {
        let place = PathBuf::from(place);
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"])
            .arg(&place)
            .status();
        assert!(mounted.unwrap().success(), "a small file system is mounted");
        return Some(place);
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    if !geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    let again = std::env::current_exe().unwrap();
    command.arg("--mount").arg(again).args(["--exact", "--nocapture", &format!("full_disk::{test}")]);
    let ran = command.env(PLACE, folder.path()).output().expect("unshare is installed");
    let printed = String::from_utf8_lossy(&ran.stdout);
    print!("{printed}");
    eprint!("{}", String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && printed.contains("1 passed"), "its output is above");
    None
}

/// A file that takes all the room there is, but for some.
struct Ballast(PathBuf);

impl Ballast {
    fn lay(folder: &Path, but_for: usize) -> Ballast {
        use std::io::Write;
        let path = folder.join("ballast");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        let laid = file.metadata().unwrap().len();
        file.set_len(laid.saturating_sub(but_for as u64)).unwrap();
        Ballast(path)
    }

    fn throw(self) {
        std::fs::remove_file(self.0).unwrap();
    }
}

fn says_that_it_is_full(error: &(dyn Error + 'static)) {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    println!("{said}");
    assert!(said.contains(FULL), "{said}");
}

fn store(folder: &Path) -> Store {
    let url = format!("file://{}/store", folder.display()).parse().unwrap();
    StoreSettings::new(url).open_for_init().unwrap()
}

fn noise(bytes: usize) -> MemoryDisk {
    let mut noise = vec![0; bytes];
    seeded().fill_bytes(&mut noise);
    MemoryDisk::new(noise)
}

async fn sound(repository: &Repository) {
    let report = repository.verify(VerifyScope::Everything, &Arc::default(), &Cancel::new()).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_store_ends_work_with_a_clear_error_and_loses_nothing() {
    let name = "a_full_disk_under_the_store_ends_work_with_a_clear_error_and_loses_nothing";
    let Some(folder) = on_a_small_disk(name, 24 * 1024) else { return };
    let repository = new_repository(store(&folder)).await;
    let (one, two) = (noise(5 * MIB), noise(5 * MIB));
    let forgotten = back_up(&repository, request(&noise(3 * MIB))).await;
    let kept = back_up(&repository, request(&one)).await;
    repository.forget(forgotten.id).await.unwrap();
    // Room for small things only, then for one byte more than nothing.
    for but_for in [100_000, 0] {
        let ballast = Ballast::lay(&folder, but_for);
        let failed = repository.backup(request(&two), &Arc::default(), &Cancel::new()).await;
        says_that_it_is_full(&failed.unwrap_err());
        assert!(restored(&repository, &kept).await == one.bytes, "reading needs no room");
        if but_for == 0 {
            says_that_it_is_full(
                &repository.collect(EAGER, &Arc::default(), &Cancel::new()).await.unwrap_err(),
            );
            says_that_it_is_full(&repository.rotate_keys().await.unwrap_err());
        }
        let mut files = Vec::new();
        files_in(&folder.join("store"), &mut files);
        let half_written: Vec<_> = files.iter().filter(|path| path.to_string_lossy().contains('#')).collect();
        assert!(half_written.is_empty(), "a full disk is not made fuller: {half_written:?}");
        ballast.throw();
        sound(&reopened(store(&folder)).await).await;
    }
    let report = repository.collect(EAGER, &Arc::default(), &Cancel::new()).await.unwrap();
    assert!(report.packs_deleted >= 2, "{report:?}");
    let snapshot = back_up(&repository, request(&two)).await;
    repository.rotate_keys().await.unwrap();
    let repository = reopened(store(&folder)).await;
    assert!(restored(&repository, &snapshot).await == two.bytes);
    assert!(restored(&repository, &kept).await == one.bytes);
    sound(&repository).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_under_the_cache_hinders_nothing() {
    let name = "a_full_disk_under_the_cache_hinders_nothing";
    let Some(folder) = on_a_small_disk(name, 256) else { return };
    let elsewhere = tempfile::tempdir().unwrap();
    new_repository(store(elsewhere.path())).await;
    let settings = || EngineSettings { cache: Some(folder.join("cache")), ..EngineSettings::default() };
    let opened = async || Repository::open(store(elsewhere.path()), secret(), settings()).await.unwrap();
    let disks = [noise(3 * MIB), noise(3 * MIB)];
    // A process that was there before there was no room, and one that comes when there is none.
    let early = opened().await;
    let first = back_up(&early, request(&disks[0])).await;
    let ballast = Ballast::lay(&folder, 0);
    let second = back_up(&early, request(&disks[1])).await;
    for repository in [early, opened().await] {
        for (snapshot, disk) in [&first, &second].into_iter().zip(&disks) {
            assert!(restored(&repository, snapshot).await == disk.bytes);
        }
        repository.collect(EAGER, &Arc::default(), &Cancel::new()).await.unwrap();
        sound(&repository).await;
    }
    ballast.throw();
    let late = opened().await;
    assert!(restored(&late, &second).await == disks[1].bytes);
    let kept = folder.join("cache").join(late.id().to_string()).join("index");
    let files = |folder: &Path| std::fs::read_dir(folder).unwrap().count();
    assert_eq!(files(&kept), files(&elsewhere.path().join("store/index")), "now there is room");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_to_a_full_disk_ends_with_a_clear_error_and_can_be_done_when_there_is_room() {
    let name = "a_restore_to_a_full_disk_ends_with_a_clear_error_and_can_be_done_when_there_is_room";
    let Some(folder) = on_a_small_disk(name, 16 * 1024) else { return };
    let repository = new_repository(memory()).await;
    let disk = noise(8 * MIB);
    let snapshot = back_up(&repository, request(&disk)).await;
    let image = folder.join("vda.raw");
    let ballast = Ballast::lay(&folder, 2 * MIB);
    let restore =
        || async { repository.restore_disk(&snapshot, "vda", &image, &Arc::default(), &Cancel::new()).await };
    says_that_it_is_full(&restore().await.unwrap_err());
    assert!(!image.exists(), "half an image is none");
    ballast.throw();
    restore().await.unwrap();
    assert!(std::fs::read(&image).unwrap() == disk.bytes);
}
