//! Disks that a restore has written are taken over as plain files of their writer, or not at all.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use contract::VmName;
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};
use provisioner::adapters::qemu_img::QemuImgDisks;
use provisioner::ports::{DiskError, Disks};

use crate::support::vm;

/// A user without anything else.
const WRITER: u32 = 60_001;
const OTHER: u32 = 60_002;

struct Restore {
    _folder: tempfile::TempDir,
    disks: QemuImgDisks,
    vm: VmName,
    /// Where it is written, and what the VM runs on.
    written: PathBuf,
    disk: PathBuf,
    secret: PathBuf,
}

async fn restore() -> Restore {
    let folder = tempfile::tempdir().expect("a folder");
    // Only root can give folders away.
    let writer = geteuid().is_root().then_some(WRITER);
    let disks = QemuImgDisks::open(&folder.path().join("state"), None).expect("folders").read_by(writer);
    let vm = vm("web2");
    let written = disks.create_restore_folder(&vm).await.expect("a folder").join("vda.raw");
    let disk = disks.folder(&vm).join("vda.raw");
    let secret = folder.path().join("secret");
    fs::write(&secret, "a secret").expect("written");
    Restore { _folder: folder, disks, vm, written, disk, secret }
}

fn write_as(path: &Path, uid: u32) {
    fs::write(path, "a disk").expect("written");
    fs::set_permissions(path, PermissionsExt::from_mode(0o666)).expect("set");
    if geteuid().is_root() {
        chown(path, Some(uid), Some(uid)).expect("given");
    }
}

#[tokio::test]
async fn a_restored_disk_is_ours_when_its_vm_is_created_and_its_folder_is_gone() {
    let Restore { _folder, disks, vm, written, disk, .. } = restore().await;
    let folder = written.parent().expect("a folder");
    let about = fs::metadata(folder).expect("there");
    assert_eq!(about.mode() & 0o777, 0o700);
    if geteuid().is_root() {
        assert_eq!(about.uid(), WRITER, "the writer can write there");
        assert_eq!(fs::metadata(disks.folder(&vm)).expect("there").uid(), 0, "and nowhere else");
    }
    assert!(!disks.take_restored(&vm, &disk).await.expect("an answer"), "it is not written yet");
    write_as(&written, WRITER);
    for _ in 0..2 {
        assert!(disks.take_restored(&vm, &disk).await.expect("taken"));
    }
    assert_eq!(disks.create_restore_folder(&vm).await.expect("again"), folder);
    // What it writes there afterwards changes nothing.
    write_as(&written, WRITER);
    fs::write(&written, "another disk").expect("written");
    assert!(disks.take_restored(&vm, &disk).await.expect("taken before"));
    assert_eq!(fs::read_to_string(&disk).expect("readable"), "a disk");
    let about = fs::metadata(&disk).expect("there");
    assert_eq!((about.uid(), about.mode() & 0o777), (geteuid().as_raw(), 0o600));
    for _ in 0..2 {
        disks.end_restore_folder(&vm).await.expect("removed");
    }
    assert!(!folder.exists() && disk.exists());
}

#[tokio::test]
async fn a_takeover_that_was_interrupted_goes_on() {
    let Restore { _folder, disks, vm, written, disk, .. } = restore().await;
    write_as(&written, WRITER);
    fs::rename(&written, disk.with_added_extension("taken")).expect("as far as the first step");
    assert!(disks.take_restored(&vm, &disk).await.expect("taken"));
    assert_eq!(fs::metadata(&disk).expect("there").uid(), geteuid().as_raw());
}

#[tokio::test]
async fn links_and_files_of_others_are_removed_and_never_used() {
    let Restore { _folder, disks, vm, written, disk, secret } = restore().await;
    let before = fs::metadata(&secret).expect("there");
    let mut attempts: Vec<Box<dyn Fn()>> = vec![
        Box::new(|| symlink(&secret, &written).expect("linked")),
        Box::new(|| symlink("/nonexistent", &written).expect("linked")),
        Box::new(|| fs::hard_link(&secret, &written).expect("linked")),
        Box::new(|| mkfifo(&written, Mode::S_IRWXU).expect("made")),
        Box::new(|| {
            write_as(&written, WRITER);
            fs::hard_link(&written, written.with_extension("kept")).expect("linked");
        }),
    ];
    if geteuid().is_root() {
        attempts.push(Box::new(|| write_as(&written, OTHER)));
    }
    for (number, attempt) in attempts.iter().enumerate() {
        attempt();
        let refused = disks.take_restored(&vm, &disk).await.expect_err("not a restored disk");
        assert!(matches!(refused, DiskError::UnusableImage(_)), "attempt {number}: {refused}");
        assert!(fs::symlink_metadata(&disk).is_err() && fs::symlink_metadata(&written).is_err());
    }
    let after = fs::metadata(&secret).expect("there");
    assert_eq!(
        (after.uid(), after.mode()),
        (before.uid(), before.mode()),
        "what a link leads to is as before"
    );
    assert_eq!(fs::read_to_string(&secret).expect("readable"), "a secret");
}
