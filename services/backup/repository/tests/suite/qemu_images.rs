//! Image files that QEMU reads for us.

use std::fs;
use std::path::Path;
use std::process::Command;

use backup_repository::source::{Change, ExtentKind};
use backup_repository::*;

use crate::support::*;

async fn open(address: &str, references: ImageReferencePolicy) -> Result<Box<dyn DiskSource>, SourceError> {
    address.parse::<DiskAddress>().unwrap().open(references).await
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Our `qemu-nbd` children that still run.
fn children_of_us() -> usize {
    let me = std::process::id().to_string();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats
        .filter(|stat| {
            let (name, rest) = stat.rsplit_once(')').unwrap();
            name.ends_with("(qemu-nbd") && rest.split_whitespace().nth(1) == Some(&me)
        })
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_refers_to_other_files_is_refused_unless_that_is_allowed() {
    qemu::must_be_there();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (secret, base) = (at("secret"), at("base.qcow2"));
    fs::write(&secret, vec![b's'; 65536]).unwrap();
    qemu::run("qemu-img", &["create", "-q", "-f", "qcow2", text(&base), "1M"]);
    qemu::run("qemu-io", &["-c", "write -q -P 5 0 64k", text(&base)]);
    let (overlay, thief, data, parts) = (at("o.qcow2"), at("t.qcow2"), at("d.qcow2"), at("p.vmdk"));
    qemu::run("qemu-img", &["create", "-q", "-f", "qcow2", "-b", text(&base), "-F", "qcow2", text(&overlay)]);
    qemu::run("qemu-img", &["create", "-q", "-f", "qcow2", "-b", text(&secret), "-F", "raw", text(&thief)]);
    let data_file = format!("data_file={}", text(&at("d.raw")));
    qemu::run("qemu-img", &["create", "-q", "-f", "qcow2", "-o", &data_file, text(&data), "1M"]);
    let flat = ["create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentFlat", text(&parts), "1M"];
    qemu::run("qemu-img", &flat);
    for image in [&overlay, &thief, &data, &parts] {
        let refused = open(text(image), ImageReferencePolicy::Refuse).await.err().unwrap();
        assert!(matches!(refused, SourceError::Refused { .. }), "{refused}");
        assert!(refused.to_string().contains("any file of this host"), "{refused}");
    }
    let followed = open(text(&overlay), ImageReferencePolicy::Follow).await.unwrap();
    assert!(followed.read_at(0, 65536).await.unwrap() == vec![5; 65536]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_bytes_show_the_format_and_an_explicit_one_overrules_them() {
    qemu::must_be_there();
    let folder = tempfile::tempdir().unwrap();
    for format in ["qcow2", "vmdk", "vdi", "vhdx", "vpc", "qed"] {
        let image = folder.path().join(format!("disk.{format}"));
        qemu::run("qemu-img", &["create", "-q", "-f", format, text(&image), "4M"]);
        qemu::run("qemu-io", &["-f", format, "-c", "write -q -P 6 64k 64k", text(&image)]);
        let source = open(text(&image), ImageReferencePolicy::Refuse).await.unwrap();
        assert!(source.size_bytes() >= 4 * MIB as u64, "{format}");
        let read = source.read_at(65536 - 10, 100).await.unwrap();
        assert!(read[..10] == [0; 10] && read[10..] == [6; 90], "{format}");
        drop(source);
        let raw = open(&format!("raw:{}", text(&image)), ImageReferencePolicy::Refuse).await.unwrap();
        assert_eq!(raw.size_bytes(), fs::metadata(&image).unwrap().len());
    }
    let plain = folder.path().join("plain");
    fs::write(&plain, "short").unwrap();
    assert_eq!(open(text(&plain), ImageReferencePolicy::Refuse).await.unwrap().size_bytes(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persistent_bitmap_is_chosen_by_its_name() {
    qemu::must_be_there();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.qcow2");
    qemu::run("qemu-img", &["create", "-q", "-f", "qcow2", text(&image), "16M"]);
    qemu::run("qemu-img", &["bitmap", "--add", text(&image), "monday"]);
    qemu::run("qemu-io", &["-c", "write -q -P 1 1M 64k", text(&image)]);
    qemu::run("qemu-img", &["bitmap", "--add", text(&image), "tuesday"]);
    qemu::run("qemu-io", &["-c", "write -q -P 2 8M 64k", text(&image)]);
    let dirty = async |address: DiskAddress| {
        let source = address.open(ImageReferencePolicy::Refuse).await.unwrap();
        let extents = source.extents(0..source.size_bytes()).await.unwrap();
        let dirty = extents.iter().filter(|extent| extent.change == Change::Dirty);
        dirty.map(|extent| extent.length).sum::<u64>()
    };
    let plain = DiskAddress::from(image.as_path());
    assert_eq!(dirty(plain.clone().with_dirty_bitmap("monday")).await, 2 * 65536);
    assert_eq!(dirty(plain.clone().with_dirty_bitmap("tuesday")).await, 65536);
    let missing = plain.with_dirty_bitmap("sunday").open(ImageReferencePolicy::Refuse).await.err().unwrap();
    assert!(missing.to_string().contains("sunday"), "{missing}");

    let served = qemu::Served::start(&image, "qcow2", Some("tuesday")).await;
    let uri = format!("{}&bitmap=tuesday", served.settings());
    assert_eq!(dirty(uri.parse().unwrap()).await, 65536);
    let refused = open(&format!("{}&bitmap=monday", served.settings()), ImageReferencePolicy::Refuse).await;
    assert!(
        matches!(refused.err(), Some(SourceError::Refused { .. })),
        "only the exported one can be asked for"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_child_ends_with_its_source_and_its_stderr_is_in_the_error() {
    qemu::must_be_there();
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("disk.qcow2");
    qemu::run("qemu-img", &["create", "-q", "-f", "qcow2", text(&image), "1M"]);
    let source = open(text(&image), ImageReferencePolicy::Refuse).await.unwrap();
    assert_eq!(source.extents(0..MIB as u64).await.unwrap()[0].kind, ExtentKind::Zero);
    assert_eq!(children_of_us(), 1);
    // It reads, so nobody may write.
    let output = Command::new("qemu-io").args(["-c", "write 0 1k", text(&image)]).output().unwrap();
    assert!(!output.status.success());
    drop(source);
    eventually("the child has gone", || children_of_us() == 0).await;

    let broken = folder.path().join("broken.qcow2");
    fs::write(
        &broken,
        b"QFI\xfb\0\0\0\x03 and then nonsense of some length, long enough for a header".repeat(4),
    )
    .unwrap();
    let error = open(text(&broken), ImageReferencePolicy::Follow).await.err().unwrap();
    assert!(matches!(&error, SourceError::Tool { stderr, .. } if stderr.contains("qcow2")), "{error}");
    let error = open(text(&broken), ImageReferencePolicy::Refuse).await.err().unwrap();
    assert!(matches!(&error, SourceError::Tool { stderr, .. } if stderr.contains("qcow2")), "{error}");
    let error = open("/nowhere/disk", ImageReferencePolicy::Refuse).await.err().unwrap();
    assert!(matches!(error, SourceError::Io { .. }), "{error}");
}
