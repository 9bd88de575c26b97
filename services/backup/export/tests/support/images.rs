//! Disks with file systems on them, made by the usual tools.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{MIB, have, run};

pub const TOOLS: [&str; 5] = ["mke2fs", "mkfs.vfat", "mcopy", "nbdkit", "nbdcopy"];

pub fn tools_are_there() -> bool {
    have(&TOOLS)
}

/// What the file systems below hold: a few files, links and a large file.
pub fn content(folder: &Path) -> PathBuf {
    let root = folder.join("content");
    fs::create_dir_all(root.join("etc/deep/er")).unwrap();
    fs::create_dir_all(root.join("usr/lib")).unwrap();
    fs::write(root.join("etc/hostname"), "loam\n").unwrap();
    fs::write(root.join("usr/lib/os-release"), "ID=debian\n").unwrap();
    fs::write(root.join("large"), large()).unwrap();
    fs::write(root.join("etc/deep/er/empty"), "").unwrap();
    symlink("../usr/lib/os-release", root.join("etc/os-release")).unwrap();
    symlink("/usr/lib", root.join("lib")).unwrap();
    symlink("../../../../../../etc/passwd", root.join("outside")).unwrap();
    symlink("circle", root.join("circle")).unwrap();
    root
}

/// 5 MiB and some, with every block its own.
pub fn large() -> Vec<u8> {
    (0..700_000u64).flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect()
}

/// A file system of a kind that `mke2fs` makes, holding `content`.
pub async fn ext(folder: &Path, kind: &str, content: &Path) -> PathBuf {
    let image = folder.join(format!("{kind}.img"));
    let (content, path) = (content.to_str().unwrap(), image.to_str().unwrap());
    run("mke2fs", &["-q", "-t", kind, "-d", content, path, "24M"]).await;
    image
}

/// A FAT file system with two files.
pub async fn fat(folder: &Path, content: &Path) -> PathBuf {
    let image = folder.join("fat.img");
    let path = image.to_str().unwrap();
    fs::File::create_new(&image).unwrap().set_len(16 * MIB).unwrap();
    run("mkfs.vfat", &["-F", "16", path]).await;
    for name in ["etc", "large"] {
        let from = content.join(name);
        run("mcopy", &["-s", "-Q", "-i", path, from.to_str().unwrap(), "::/"]).await;
    }
    image
}

/// A disk with a partition table of a kind (`gpt`, `mbr`) and these partitions.
pub async fn partitioned(folder: &Path, kind: &str, parts: &[&Path]) -> PathBuf {
    let disk = folder.join(format!("{kind}.disk"));
    let kind = format!("partition-type={kind}");
    let copy = format!("nbdcopy \"$uri\" {}", disk.display());
    let mut arguments = vec!["-U", "-", "partitioning", &kind];
    arguments.extend(parts.iter().map(|part| part.to_str().unwrap()));
    arguments.extend(["--run", &copy]);
    run("nbdkit", &arguments).await;
    disk
}
