//! Disks read through the kernel. Needs root and /dev/fuse.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use backup_export::mount::*;
use backup_repository::DiskSource;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;

use self::support::images::{self, content, ext, fat, large, partitioned};
use self::support::*;

fn can_mount() -> bool {
    let can = geteuid().is_root() && Path::new("/dev/fuse").exists();
    if !can {
        println!("skipped: this is not root, or there is no /dev/fuse");
    }
    can && images::tools_are_there()
}

/// Reads through the kernel, off the runtime's threads, which answer it.
async fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let path = path.to_owned();
    spawn_blocking(move || fs::read(path)).await.unwrap()
}

async fn names(path: &Path) -> Vec<String> {
    let path = path.to_owned();
    let listed = move || fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names = spawn_blocking(move || listed().collect::<Vec<_>>()).await.unwrap();
    names.sort();
    names
}

fn is_mounted(path: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4) == path.to_str())
}

struct Fixture {
    folder: tempfile::TempDir,
    bytes: Vec<u8>,
    ext4: Vec<u8>,
    disks: Vec<(String, Arc<dyn DiskSource>)>,
}

impl Fixture {
    async fn new() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let content = content(folder.path());
        let (ext4, fat) = (ext(folder.path(), "ext4", &content).await, fat(folder.path(), &content).await);
        let disk = partitioned(folder.path(), "gpt", &[&fat, &ext4]).await;
        for name in ["disks", "target"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let disks = vec![("vda".to_owned(), raw(&disk)), ("nvme0n1".to_owned(), raw(&disk))];
        Fixture { bytes: fs::read(&disk).unwrap(), ext4: fs::read(&ext4).unwrap(), disks, folder }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn mount(&self) -> DisksMount {
        DisksMount::start(&self.path("disks"), self.disks.clone()).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn disks_and_partitions_are_files_whose_bytes_and_holes_the_kernel_reads() {
    if !can_mount() {
        return;
    }
    let fixture = Fixture::new().await;
    let mount = fixture.mount().await;
    let shown = names(&fixture.path("disks")).await;
    assert_eq!(shown, ["nvme0n1", "nvme0n1p1", "nvme0n1p2", "vda", "vda1", "vda2"]);
    assert!(read(&fixture.path("disks/vda")).await.unwrap() == fixture.bytes);
    assert!(read(&fixture.path("disks/vda2")).await.unwrap() == fixture.ext4);
    read(&fixture.path("disks/vdb")).await.unwrap_err();
    let vda = fixture.path("disks/vda");
    let (written, tail) = spawn_blocking(move || {
        let written = fs::OpenOptions::new().write(true).open(&vda);
        let mut file = fs::File::open(&vda).unwrap();
        file.seek(SeekFrom::End(-100)).unwrap();
        let mut tail = Vec::new();
        file.read_to_end(&mut tail).unwrap();
        (written, tail)
    })
    .await
    .unwrap();
    assert!(written.is_err(), "the mount is read-only");
    assert!(tail == fixture.bytes[fixture.bytes.len() - 100..]);
    if have(&["qemu-img"]) {
        let map = run(
            "qemu-img",
            &["map", "--output=json", "-f", "raw", fixture.path("disks/vda2").to_str().unwrap()],
        )
        .await;
        assert!(map.contains("\"zero\": true"), "holes are seen: {map}");
    }

    let again = DisksMount::start(&fixture.path("disks"), Vec::new()).await;
    assert!(matches!(again, Err(MountError::Folder { .. })));
    mount.unmount().await.unwrap();
    assert!(!is_mounted(&fixture.path("disks")));
    assert_eq!(names(&fixture.path("disks")).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_is_attached_and_everything_is_unmounted_on_sigterm() {
    if !can_mount() {
        return;
    }
    let fixture = Fixture::new().await;
    let mut terminated = signal(SignalKind::terminate()).unwrap();
    let mut mount = fixture.mount().await;
    mount.attach("vda2", &fixture.path("target")).await.unwrap();
    assert!(read(&fixture.path("target/large")).await.unwrap() == large());
    assert_eq!(read(&fixture.path("target/etc/os-release")).await.unwrap(), b"ID=debian\n");
    let target = fixture.path("target");
    let written = spawn_blocking(move || fs::write(target.join("etc/new"), "x")).await.unwrap();
    assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    let occupied = mount.attach("vda2", &fixture.path("target")).await.unwrap_err();
    assert!(matches!(occupied, MountError::Folder { .. }), "{occupied}");
    fs::create_dir(fixture.path("other")).unwrap();
    let whole = mount.attach("vda", &fixture.path("other")).await.unwrap_err();
    assert_eq!(whole.to_string(), "vda holds nothing known, which cannot be mounted");
    let none = mount.attach("vdz", &fixture.path("other")).await.unwrap_err();
    assert!(matches!(none, MountError::NoSuchDisk { .. }), "{none}");

    let ended = tokio::spawn(mount.until(async move {
        terminated.recv().await;
    }));
    kill(Pid::this(), Signal::SIGTERM).unwrap();
    ended.await.unwrap().unwrap();
    for name in ["target", "disks"] {
        assert!(!is_mounted(&fixture.path(name)), "{name}");
    }
    let loops = run("losetup", &["--list", "--noheadings", "--output", "BACK-FILE"]).await;
    assert!(!loops.contains(fixture.folder.path().to_str().unwrap()), "no loop device is left: {loops}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_still_in_use_is_detached_and_reported() {
    if !can_mount() {
        return;
    }
    let fixture = Fixture::new().await;
    let mount = fixture.mount().await;
    let vda = fixture.path("disks/vda");
    let held = spawn_blocking(move || fs::File::open(vda).unwrap()).await.unwrap();
    let error = mount.unmount().await.unwrap_err();
    assert!(matches!(error, MountError::StillInUse { .. }), "{error}");
    assert!(!is_mounted(&fixture.path("disks")));
    spawn_blocking(move || drop(held)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_fails_below_is_an_error_of_that_read() {
    if !can_mount() {
        return;
    }
    let fixture = Fixture::new().await;
    let source = Gated::new(Arc::clone(&fixture.disks[0].1), 0..0);
    let disks: Vec<(String, Arc<dyn DiskSource>)> = vec![("vda".into(), source.clone())];
    let mount = DisksMount::start(&fixture.path("disks"), disks).await.unwrap();
    source.break_down(true);
    assert!(read(&fixture.path("disks/vda")).await.is_err());
    source.break_down(false);
    assert!(read(&fixture.path("disks/vda")).await.unwrap() == fixture.bytes);
    mount.unmount().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_whose_process_is_dead_is_unmounted_by_the_next() {
    if !can_mount() {
        return;
    }
    let fixture = Fixture::new().await;
    let mount = fixture.mount().await;
    // What a killed process leaves: a mount without a process that answers.
    let device =
        fs::metadata(fixture.path("disks")).map(|found| std::os::unix::fs::MetadataExt::dev(&found)).unwrap();
    let minor = nix::sys::stat::minor(device);
    let abort = Path::new("/sys/fs/fuse/connections").join(minor.to_string()).join("abort");
    let connections = "/sys/fs/fuse/connections";
    let mounted_here = !abort.exists();
    if mounted_here {
        run("mount", &["-t", "fusectl", "fusectl", connections]).await;
    }
    spawn_blocking(move || fs::write(abort, "1").unwrap()).await.unwrap();
    if mounted_here {
        run("umount", &[connections]).await;
    }
    std::mem::forget(mount);
    let disks = fixture.path("disks");
    eventually("it is dead", || fs::read_dir(&disks).is_err()).await;
    let mount = fixture.mount().await;
    assert!(read(&fixture.path("disks/vda2")).await.unwrap() == fixture.ext4);
    mount.unmount().await.unwrap();
    assert!(!is_mounted(&disks));
}
