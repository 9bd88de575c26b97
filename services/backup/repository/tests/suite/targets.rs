//! Restores to everything that a disk can be restored to, and from what QEMU makes.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_repository::restore::{
    DeviceContent, ImageError, ReadBack, Resize, RestoreReport, RestoreRequest, RestoreTarget, partial_path,
};
use backup_repository::*;
use proptest::prelude::*;
use rand::{Rng, RngExt};

use crate::support::*;

struct Restorable {
    folder: tempfile::TempDir,
    repository: Repository,
    snapshot: Snapshot,
    bytes: Vec<u8>,
}

impl Restorable {
    async fn of(bytes: Vec<u8>) -> Restorable {
        let repository = new_repository(memory()).await;
        let snapshot = back_up(&repository, request(&MemoryDisk::new(bytes.clone()))).await;
        Restorable { folder: tempfile::tempdir().unwrap(), repository, snapshot, bytes }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn restore(&self, target: RestoreTarget) -> Result<RestoreReport, RestoreError> {
        let request = RestoreRequest { read_back: ReadBack::Yes, ..RestoreRequest::new("vda", target) };
        self.repository.restore(&self.snapshot, &request, &Arc::default(), &Cancel::new()).await
    }

    async fn stream(&self, range: std::ops::Range<u64>) -> Result<Vec<u8>, RestoreError> {
        let mut written = Vec::new();
        let (progress, cancel) = (Arc::default(), Cancel::new());
        let restored =
            self.repository.restore_stream(&self.snapshot, "vda", range, &mut written, &progress, &cancel);
        restored.await.map(|()| written)
    }
}

fn existing(path: PathBuf, resize: Resize) -> RestoreTarget {
    RestoreTarget::Existing {
        path,
        format: Some(ImageFormat::Raw),
        resize,
        references: ImageReferencePolicy::Refuse,
    }
}

/// The same disk, changed here and there.
fn changed(rng: &mut impl Rng, bytes: &[u8]) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    for _ in 0..rng.random_range(0..6) {
        let length = rng.random_range(1..=changed.len().min(300_000));
        let at = rng.random_range(0..=changed.len() - length);
        match rng.random_range(0..3) {
            0 => changed[at..at + length].fill(0),
            _ => rng.fill_bytes(&mut changed[at..at + length]),
        }
    }
    changed
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn whatever_the_disk_every_target_gets_its_bytes(
        bytes in any_disk(),
        seed: u64,
        from: prop::sample::Index,
        to: prop::sample::Index,
    ) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let one = Restorable::of(bytes).await;
            let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);

            let raw = one.path("new.raw");
            let report = one.restore(RestoreTarget::NewRaw { path: raw.clone() }).await.unwrap();
            prop_assert_eq!((report.kept_bytes, report.zeroed_bytes), (0, 0));
            prop_assert!(fs::read(&raw).unwrap() == one.bytes);

            let old = one.path("old.raw");
            fs::write(&old, changed(&mut rng, &one.bytes)).unwrap();
            let report = one.restore(existing(old.clone(), Resize::Never)).await.unwrap();
            let all = report.kept_bytes + report.zeroed_bytes + report.written_bytes;
            prop_assert_eq!(all, one.bytes.len() as u64);
            prop_assert!(fs::read(&old).unwrap() == one.bytes);

            let other = one.path("other.raw");
            fs::write(&other, vec![0xa5; rng.random_range(0..6 * MIB)]).unwrap();
            one.restore(existing(other.clone(), Resize::ToFit)).await.unwrap();
            prop_assert!(fs::read(&other).unwrap() == one.bytes);

            let left = one.path("left.raw");
            fs::write(partial_path(&left), changed(&mut rng, &one.bytes)).unwrap();
            one.restore(RestoreTarget::NewRaw { path: left.clone() }).await.unwrap();
            prop_assert!(fs::read(&left).unwrap() == one.bytes);

            let size = one.bytes.len();
            prop_assert!(one.stream(0..size as u64).await.unwrap() == one.bytes);
            let (from, to) = (from.index(size), to.index(size + 1));
            let (from, to) = (from.min(to), from.max(to));
            let part = one.stream(from as u64..to as u64).await.unwrap();
            prop_assert!(part == one.bytes[from..to]);
            Ok(())
        })?;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn into_an_existing_image_only_what_differs_is_written() {
    let mut rng = seeded();
    let mut bytes = disk(&mut rng, 24 * MIB);
    bytes[8 * MIB..16 * MIB].fill(0);
    let one = Restorable::of(bytes.clone()).await;
    let path = one.path("vda.raw");
    one.restore(RestoreTarget::NewRaw { path: path.clone() }).await.unwrap();
    let written_at = || fs::metadata(&path).map(|meta| (meta.mtime(), meta.mtime_nsec())).unwrap();
    let before = written_at();
    let again = one.restore(existing(path.clone(), Resize::Never)).await.unwrap();
    assert_eq!(again, RestoreReport { written_bytes: 0, zeroed_bytes: 0, kept_bytes: 24 * MIB as u64 });
    assert_eq!(written_at(), before, "nothing was written");

    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[!bytes[100]], 100).unwrap();
    file.write_all_at(&[1], 9 * MIB as u64).unwrap();
    drop(file);
    let repaired = one.restore(existing(path.clone(), Resize::Never)).await.unwrap();
    assert!((1..=256 * 1024).contains(&repaired.written_bytes), "one chunk: {repaired:?}");
    assert_eq!(repaired.zeroed_bytes, 64 * 1024);
    assert!(fs::read(&path).unwrap() == bytes);
    let allocated = fs::metadata(&path).unwrap().blocks() * 512;
    assert!(allocated <= 17 * MIB as u64, "the hole is one again: {allocated} bytes are allocated");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_another_size_or_in_use_is_refused_untouched() {
    let one = Restorable::of(disk(&mut seeded(), MIB)).await;
    for size in [MIB - 1, MIB + 1] {
        let path = one.path("other.raw");
        fs::write(&path, vec![3; size]).unwrap();
        let refused = one.restore(existing(path.clone(), Resize::Never)).await.unwrap_err();
        assert!(matches!(refused, RestoreError::Image(ImageError::Size { .. })), "{refused}");
        assert!(fs::read(&path).unwrap() == vec![3; size]);
    }
    let folder = one.restore(existing(one.folder.path().to_owned(), Resize::Never)).await.unwrap_err();
    assert!(matches!(folder, RestoreError::Image(ImageError::NotADisk { .. })), "{folder}");

    let file = one.path("other.raw");
    let no_device = RestoreTarget::OverwriteDevice { path: file, before: DeviceContent::Unknown };
    let refused = one.restore(no_device).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Image(ImageError::NotADisk { .. })), "{refused}");

    qemu::must_be_there();
    let used = one.path("used.raw");
    fs::write(&used, vec![3; MIB]).unwrap();
    let served = qemu::Served::start(&used, "raw", None).await;
    let refused = one.restore(existing(used.clone(), Resize::Never)).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Image(ImageError::InUse { .. })), "{refused}");
    drop(served);
    assert!(fs::read(&used).unwrap() == vec![3; MIB]);
    one.restore(existing(used.clone(), Resize::Never)).await.unwrap();
    assert!(fs::read(&used).unwrap() == one.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partial_image_that_is_not_ours_is_left_alone() {
    let one = Restorable::of(disk(&mut seeded(), MIB)).await;
    let (path, elsewhere) = (one.path("vda.raw"), one.path("elsewhere"));
    fs::write(&elsewhere, "precious").unwrap();
    fs::hard_link(&elsewhere, partial_path(&path)).unwrap();
    let refused = one.restore(RestoreTarget::NewRaw { path: path.clone() }).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Image(ImageError::NotAPartialImage { .. })), "{refused}");
    fs::remove_file(partial_path(&path)).unwrap();
    std::os::unix::fs::symlink(&elsewhere, partial_path(&path)).unwrap();
    let refused = one.restore(RestoreTarget::NewRaw { path: path.clone() }).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Image(ImageError::Io { .. })), "{refused}");
    assert_eq!(fs::read(&elsewhere).unwrap(), b"precious");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_that_the_disk_does_not_have_is_refused() {
    let one = Restorable::of(disk(&mut seeded(), MIB)).await;
    for range in [0..MIB as u64 + 1, MIB as u64 + 1..MIB as u64 + 2] {
        let refused = one.stream(range).await.unwrap_err();
        assert!(matches!(refused, RestoreError::Range { .. }), "{refused}");
    }
}

/// A writer that accepts nothing more blocks the restore, and memory stays bounded; cancelled, it stops.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_reader_waits_until_it_is_cancelled_or_broken() {
    let one = Restorable::of(disk(&mut seeded(), 24 * MIB)).await;
    let (mut writer, reader) = tokio::io::duplex(1000);
    let (progress, cancel) = (Arc::new(Progress::new()), Cancel::new());
    let all = 0..24 * MIB as u64;
    let restore =
        one.repository.restore_stream(&one.snapshot, "vda", all.clone(), &mut writer, &progress, &cancel);
    let mut restore = Box::pin(restore);
    let waited = tokio::time::timeout(std::time::Duration::from_millis(300), &mut restore).await;
    assert!(waited.is_err(), "it waits");
    cancel.cancel();
    assert!(matches!(restore.as_mut().await, Err(RestoreError::Cancelled)));
    drop((restore, reader));
    let cancel = Cancel::new();
    let broken =
        one.repository.restore_stream(&one.snapshot, "vda", all, &mut writer, &progress, &cancel).await;
    assert!(matches!(broken, Err(RestoreError::WriteStream(_))), "{broken:?}");
}

fn compare(a: (&Path, &str), b: (&Path, &str)) {
    let (left, right) = (a.0.to_str().unwrap(), b.0.to_str().unwrap());
    qemu::run("qemu-img", &["compare", "-f", a.1, "-F", b.1, left, right]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qcow2_image_goes_in_and_out_unchanged() {
    qemu::must_be_there();
    let folder = tempfile::tempdir().unwrap();
    let (source, raw) = (folder.path().join("source.qcow2"), folder.path().join("source.raw"));
    let mut rng = seeded();
    let mut bytes = disk(&mut rng, 20 * MIB);
    rng.fill_bytes(&mut bytes[..2 * MIB]);
    bytes[6 * MIB..14 * MIB].fill(0);
    fs::write(&raw, &bytes).unwrap();
    let (from, to) = (raw.to_str().unwrap(), source.to_str().unwrap());
    qemu::run("qemu-img", &["convert", "-q", "-c", "-f", "raw", "-O", "qcow2", from, to]);

    let repository = new_repository(memory()).await;
    let address: DiskAddress = to.parse().unwrap();
    let opened = address.open(ImageReferencePolicy::Refuse).await.unwrap();
    assert_eq!(opened.size_bytes(), bytes.len() as u64);
    let by_qcow2 =
        BackupRequest { disks: vec![("vda".into(), opened)], ..request(&MemoryDisk::new(Vec::new())) };
    let snapshot = back_up(&repository, by_qcow2).await;
    let by_bytes = back_up(&repository, request(&MemoryDisk::new(bytes.clone()))).await;
    assert_eq!(snapshot.contents.disks, by_bytes.contents.disks, "the way in does not matter");
    assert!(snapshot.contents.stats.zero_segments >= 1, "its holes are not read");

    let one = Restorable { folder, repository, snapshot, bytes };
    let out = one.path("out.qcow2");
    one.restore(RestoreTarget::NewQcow2 { path: out.clone() }).await.unwrap();
    compare((&source, "qcow2"), (&out, "qcow2"));
    qemu::run("qemu-img", &["check", "-q", out.to_str().unwrap()]);
    assert!(!partial_path(&out).exists());
    let allocated = fs::metadata(&out).unwrap().blocks() * 512;
    assert!(allocated <= 14 * MIB as u64, "{allocated} bytes are allocated");

    // What exists is not replaced, but can be restored into.
    let refused = one.restore(RestoreTarget::NewQcow2 { path: out.clone() }).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Image(ImageError::Exists { .. })), "{refused}");
    qemu::run("qemu-io", &["-c", "write -q -P 7 1M 64k", "-c", "write -q -P 9 8M 1M", out.to_str().unwrap()]);
    let report = one.restore(RestoreTarget::existing(&out)).await.unwrap();
    assert!(report.written_bytes > 0 && report.written_bytes <= 640 * 1024, "{report:?}");
    assert_eq!(report.zeroed_bytes, MIB as u64);
    compare((&raw, "raw"), (&out, "qcow2"));
    qemu::run("qemu-img", &["check", "-q", out.to_str().unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qcow2_image_of_an_odd_size_ends_in_zeros() {
    qemu::must_be_there();
    let one = Restorable::of(disk(&mut seeded(), 700_001)).await;
    let (out, raw) = (one.path("out.qcow2"), one.path("out.raw"));
    one.restore(RestoreTarget::NewQcow2 { path: out.clone() }).await.unwrap();
    let (from, to) = (out.to_str().unwrap(), raw.to_str().unwrap());
    qemu::run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", from, to]);
    let restored = fs::read(&raw).unwrap();
    assert_eq!(restored.len(), 700_001usize.next_multiple_of(512));
    assert!(restored[..700_001] == one.bytes && restored[700_001..].iter().all(|&byte| byte == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qcow2_restore_that_fails_reports_why_and_leaves_nothing() {
    qemu::must_be_there();
    let one = Restorable::of(disk(&mut seeded(), 4 * MIB)).await;
    let nowhere = one.path("not-there/out.qcow2");
    assert!(one.restore(RestoreTarget::NewQcow2 { path: nowhere }).await.is_err());
    let cancel = Cancel::new();
    let out = one.path("out.qcow2");
    let request = RestoreRequest::new("vda", RestoreTarget::NewQcow2 { path: out.clone() });
    let progress = Arc::new(Progress::new());
    let restore = one.repository.restore(&one.snapshot, &request, &progress, &cancel);
    let (outcome, ()) = tokio::join!(restore, async {
        eventually("the image was begun", || partial_path(&out).exists()).await;
        cancel.cancel();
    });
    assert!(matches!(outcome, Err(RestoreError::Cancelled)), "{outcome:?}");
    assert!(!out.exists() && !partial_path(&out).exists());
}

/// A file as a block device; both go when this is dropped.
struct Loop {
    device: PathBuf,
}

impl Loop {
    fn of(file: &Path) -> Loop {
        let output = std::process::Command::new("losetup").args(["-f", "--show"]).arg(file).output().unwrap();
        assert!(output.status.success(), "losetup: {}", String::from_utf8_lossy(&output.stderr));
        Loop { device: String::from_utf8(output.stdout).unwrap().trim().into() }
    }

    /// Bytes written since the machine started, as the kernel counts.
    fn written_bytes(&self) -> u64 {
        let name = self.device.file_name().unwrap().to_str().unwrap();
        let counters = fs::read_to_string(format!("/sys/block/{name}/stat")).unwrap();
        counters.split_whitespace().nth(6).unwrap().parse::<u64>().unwrap() * 512
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Its file goes with the folder whatever happens.
        let _ = std::process::Command::new("losetup").arg("-d").arg(&self.device).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_device_is_written_whole_or_where_it_differs_and_read_whole() {
    let mut rng = seeded();
    let mut bytes = disk(&mut rng, 12 * MIB + 4096 - 512);
    bytes[3 * MIB..7 * MIB + 1000].fill(0);
    let one = Restorable::of(bytes.clone()).await;
    let file = one.path("device");
    fs::write(&file, vec![0xee; 14 * MIB]).unwrap();
    let device = Loop::of(&file);
    let path = device.device.clone();

    let before = DeviceContent::Unknown;
    let report = one.restore(RestoreTarget::OverwriteDevice { path: path.clone(), before }).await.unwrap();
    assert_eq!(report.kept_bytes, 0);
    assert!(report.zeroed_bytes >= 4 * MIB as u64, "{report:?}");
    let read = fs::read(&path).unwrap();
    assert!(read[..bytes.len()] == bytes);
    assert!(read[bytes.len()..].iter().all(|&byte| byte == 0xee), "bytes behind it are not changed");

    let written = device.written_bytes();
    let again = one.restore(RestoreTarget::existing(&path)).await.unwrap();
    assert_eq!(again.kept_bytes, bytes.len() as u64);
    assert_eq!(device.written_bytes(), written, "the kernel saw no write");

    let raw = OpenOptions::new().write(true).open(&path).unwrap();
    raw.write_all_at(&[1; 8192], 5 * MIB as u64 + 12345).unwrap();
    raw.write_all_at(&[9; 10], 7 * MIB as u64 + 995).unwrap();
    raw.sync_all().unwrap();
    drop(raw);
    let written = device.written_bytes();
    let repaired = one.restore(RestoreTarget::existing(&path)).await.unwrap();
    assert!(repaired.written_bytes <= 256 * 1024 && repaired.zeroed_bytes <= 256 * 1024, "{repaired:?}");
    assert!(device.written_bytes() - written <= 512 * 1024);
    assert!(fs::read(&path).unwrap()[..bytes.len()] == bytes);

    let source = "raw:".to_owned() + path.to_str().unwrap();
    let opened = source.parse::<DiskAddress>().unwrap().open(ImageReferencePolicy::Refuse).await.unwrap();
    assert_eq!(opened.size_bytes(), 14 * MIB as u64);
    let whole = opened.extents(0..14 * MIB as u64).await.unwrap();
    assert_eq!(whole.len(), 1, "a device has no holes, so all is read: {whole:?}");
    let by_device =
        BackupRequest { disks: vec![("vda".into(), opened)], ..request(&MemoryDisk::new(Vec::new())) };
    let snapshot = back_up(&one.repository, by_device).await;
    assert_eq!(snapshot.contents.stats.read_bytes, 14 * MIB as u64);
    assert!(restored(&one.repository, &snapshot).await == fs::read(&path).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_declared_empty_gets_data_only_and_one_too_small_or_in_use_nothing() {
    let mut bytes = disk(&mut seeded(), 8 * MIB);
    bytes[2 * MIB..6 * MIB].fill(0);
    let one = Restorable::of(bytes.clone()).await;
    let file = one.path("device");
    File::create(&file).unwrap().set_len(8 * MIB as u64).unwrap();
    let device = Loop::of(&file);
    let target =
        || RestoreTarget::OverwriteDevice { path: device.device.clone(), before: DeviceContent::Zeros };
    let written = device.written_bytes();

    let holder = {
        use std::os::unix::fs::OpenOptionsExt;
        let exclusive = OpenOptions::new().read(true).custom_flags(nix::libc::O_EXCL).open(&device.device);
        exclusive.unwrap()
    };
    let used = one.restore(target()).await.unwrap_err();
    assert!(matches!(used, RestoreError::Image(ImageError::InUse { .. })), "{used}");
    drop(holder);
    assert_eq!(device.written_bytes(), written);
    let report = one.restore(target()).await.unwrap();
    assert_eq!(report.zeroed_bytes, 0);
    assert!(device.written_bytes() - written <= 5 * MIB as u64);
    assert!(fs::read(&device.device).unwrap() == bytes);

    let small = one.path("small");
    File::create(&small).unwrap().set_len(MIB as u64).unwrap();
    let device = Loop::of(&small);
    let target = RestoreTarget::OverwriteDevice { path: device.device.clone(), before: DeviceContent::Zeros };
    let refused = one.restore(target).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Image(ImageError::Size { .. })), "{refused}");
}
