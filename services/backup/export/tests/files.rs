//! Files of real file systems, without a mount and without root.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_export::files::*;
use backup_repository::DiskSource;
use rand::RngExt;

use self::support::images::{self, content, ext, fat, large, partitioned};
use self::support::*;

async fn names(disk: &Arc<dyn DiskSource>, place: FileSystemLocation, path: &str) -> Vec<String> {
    let entries = list(disk, place, Path::new(path)).await.unwrap();
    entries.into_iter().map(|entry| entry.name.into_string().unwrap()).collect()
}

async fn file(
    disk: &Arc<dyn DiskSource>,
    place: FileSystemLocation,
    path: &str,
) -> Result<Vec<u8>, FilesError> {
    let mut bytes = Vec::new();
    let length = extract(disk, place, Path::new(path), &mut bytes, 64 * MIB).await?;
    assert_eq!(length, bytes.len() as u64);
    Ok(bytes)
}

#[tokio::test]
async fn files_of_an_ext4_and_a_fat_partition_of_a_gpt_disk_come_out_whole() {
    if !images::tools_are_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let content = content(folder.path());
    let (ext4, fat) = (ext(folder.path(), "ext4", &content).await, fat(folder.path(), &content).await);
    let disk = raw(&partitioned(folder.path(), "gpt", &[&fat, &ext4]).await);

    let found = partitions(&disk).await.unwrap();
    let listed: Vec<_> = found.iter().map(|p| (p.number, p.size_bytes, p.file_system)).collect();
    assert_eq!(listed, [(1, 16 * MIB, FileSystem::Fat), (2, 24 * MIB, FileSystem::Ext)]);
    assert!(
        matches!(&found[1].kind, PartitionKind::Gpt { type_guid, .. } if type_guid.len() == 36),
        "{found:?}"
    );
    let bytes = disk.read_at(found[1].offset, found[1].size_bytes as usize).await.unwrap();
    assert!(bytes == std::fs::read(&ext4).unwrap(), "the partition lies where the table says");

    let on = FileSystemLocation::Partition(2);
    assert_eq!(
        names(&disk, on, "/").await,
        ["circle", "etc", "large", "lib", "lost+found", "outside", "usr"]
    );
    assert_eq!(file(&disk, on, "/etc/hostname").await.unwrap(), b"loam\n");
    assert!(file(&disk, on, "/large").await.unwrap() == large());
    assert_eq!(file(&disk, on, "/etc/deep/er/empty").await.unwrap(), b"");
    let entry = &list(&disk, on, Path::new("/etc/hostname")).await.unwrap()[0];
    assert_eq!((entry.kind.clone(), entry.size_bytes, entry.mode), (EntryKind::File, 5, Some(0o644)));

    let on = FileSystemLocation::Partition(1);
    assert_eq!(names(&disk, on, "/").await, ["etc", "large"]);
    assert_eq!(names(&disk, on, "/etc/deep").await, ["er"]);
    assert!(file(&disk, on, "/LARGE").await.unwrap() == large());
    assert_eq!(file(&disk, on, "/etc/hostname").await.unwrap(), b"loam\n");
}

#[tokio::test]
async fn links_are_shown_and_never_followed_out_of_the_file_system() {
    if !images::tools_are_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let content = content(folder.path());
    let on = FileSystemLocation::WholeDisk;
    for kind in ["ext2", "ext3", "ext4"] {
        let disk = raw(&ext(folder.path(), kind, &content).await);
        assert_eq!(partitions(&disk).await.unwrap(), []);
        let link = &list(&disk, on, Path::new("/outside")).await.unwrap()[0];
        assert_eq!(link.kind, EntryKind::Link(PathBuf::from("../../../../../../etc/passwd")));
        let outside = file(&disk, on, "/outside").await.unwrap_err();
        assert!(matches!(outside, FilesError::NotFound { .. }), "{outside}");
        let circle = file(&disk, on, "/circle").await.unwrap_err();
        assert!(matches!(circle, FilesError::WrongEntryKind { .. }), "{circle}");
        assert_eq!(file(&disk, on, "/etc/os-release").await.unwrap(), b"ID=debian\n");
        assert_eq!(names(&disk, on, "/lib").await, ["lib"]);
        assert_eq!(names(&disk, on, "/lib/").await, ["os-release"]);
    }
}

#[tokio::test]
async fn what_cannot_be_shown_is_an_error_that_says_why() {
    if !images::tools_are_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let content = content(folder.path());
    let luks = folder.path().join("luks");
    std::fs::write(&luks, [&b"LUKS\xba\xbe\x00\x02"[..], &[0; 4 << 20]].concat()).unwrap();
    let ext4 = ext(folder.path(), "ext4", &content).await;
    let fat = fat(folder.path(), &content).await;
    let disk = raw(&partitioned(folder.path(), "mbr", &[&luks, &ext4, &fat]).await);
    for (place, path, expected) in [
        (FileSystemLocation::Partition(1), "/etc", "there is LUKS, which only the kernel reads: use a mount"),
        (FileSystemLocation::Partition(9), "/etc", "the disk has no partition 9; there are: 1, 2, 3"),
        (FileSystemLocation::WholeDisk, "/etc", "no known file system begins there"),
        (FileSystemLocation::Partition(2), "/nothing", "/nothing does not exist"),
        (FileSystemLocation::Partition(3), "/nothing/here", "/nothing/here does not exist"),
        (FileSystemLocation::Partition(2), "/etc", "/etc is a folder"),
        (FileSystemLocation::Partition(3), "/", "/ is a folder"),
        (FileSystemLocation::Partition(2), "etc", "\"etc\" cannot be a path: begin it with a slash"),
    ] {
        let error = file(&disk, place, path).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let mut bytes = Vec::new();
    for place in [FileSystemLocation::Partition(2), FileSystemLocation::Partition(3)] {
        let error = extract(&disk, place, Path::new("/large"), &mut bytes, 1000).await.unwrap_err();
        assert!(matches!(error, FilesError::TooLarge { size_bytes: 5_600_000, .. }), "{error}");
    }
    assert_eq!(bytes, b"");
    let source = Gated::new(disk, 0..0);
    source.break_down(true);
    let disk: Arc<dyn DiskSource> = source;
    let error = file(&disk, FileSystemLocation::Partition(2), "/large").await.unwrap_err();
    assert!(matches!(error, FilesError::Disk(_)), "{error}");
}

#[tokio::test]
async fn a_gpt_is_read_by_its_last_header_where_the_first_is_lost() {
    if !images::tools_are_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let content = content(folder.path());
    let ext4 = ext(folder.path(), "ext4", &content).await;
    let path = partitioned(folder.path(), "gpt", &[&ext4]).await;
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[512..512 + 92].fill(0xab);
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(
        file(&raw(&path), FileSystemLocation::Partition(1), "/etc/hostname").await.unwrap(),
        b"loam\n"
    );
    let end = bytes.len();
    bytes[end - 512 + 20] ^= 1;
    bytes[end - 512 + 40] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let error = partitions(&raw(&path)).await.unwrap_err();
    assert!(matches!(error, FilesError::Damaged { what: "partition table", .. }), "{error}");
}

#[tokio::test]
async fn logical_partitions_are_found_and_a_chain_without_end_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    let mut disk = vec![0; 64 * 512];
    let mut put = |sector: usize, index: usize, kind: u8, start: u32, sectors: u32| {
        let entry = &mut disk[sector * 512 + 446 + 16 * index..][..16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..].copy_from_slice(&sectors.to_le_bytes());
        disk[sector * 512 + 510..][..2].copy_from_slice(&[0x55, 0xaa]);
    };
    put(0, 0, 0x83, 1, 4);
    put(0, 1, 0x05, 8, 50);
    put(8, 0, 0x83, 1, 3);
    put(8, 1, 0x05, 10, 10);
    put(18, 0, 0x83, 2, 5);
    std::fs::write(&path, &disk).unwrap();
    let found = partitions(&raw(&path)).await.unwrap();
    let listed: Vec<_> = found.iter().map(|p| (p.number, p.offset / 512, p.size_bytes / 512)).collect();
    assert_eq!(listed, [(1, 1, 4), (5, 9, 3), (6, 20, 5)]);
    let mut put = |sector: usize, start: u32| {
        let entry = &mut disk[sector * 512 + 446 + 16..][..16];
        entry[4] = 5;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12] = 1;
    };
    put(18, 0);
    std::fs::write(&path, &disk).unwrap();
    let error = partitions(&raw(&path)).await.unwrap_err();
    assert!(matches!(error, FilesError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn damaged_file_systems_give_bytes_or_errors_and_never_hang() {
    if !images::tools_are_there() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let content = content(folder.path());
    let images = [ext(folder.path(), "ext4", &content).await, fat(folder.path(), &content).await];
    let mut random = seeded();
    let (mut errors, mut panics) = (0, 0);
    for image in images {
        let whole = std::fs::read(&image).unwrap();
        for _ in 0..60 {
            let mut bytes = whole.clone();
            // Where the metadata are, mostly.
            for _ in 0..random.random_range(1..40) {
                let most = if random.random() { 4096 } else { 2 << 20 };
                let at = random.random_range(0..most);
                bytes[at] = random.random();
            }
            let damaged = folder.path().join("damaged");
            std::fs::write(&damaged, &bytes).unwrap();
            let disk = raw(&damaged);
            for path in ["/etc/hostname", "/large"] {
                if let Err(error) = file(&disk, FileSystemLocation::WholeDisk, path).await {
                    errors += 1;
                    panics += usize::from(error.to_string().contains("its reader gave up"));
                }
            }
            errors += usize::from(
                list(&disk, FileSystemLocation::WholeDisk, Path::new("/etc/deep")).await.is_err(),
            );
        }
    }
    assert!(errors > 0, "some of the damage was noticed");
    // A panic of a third-party reader is an error of this one read, too.
    println!("{errors} errors, {panics} of them panics of a reader");
}
