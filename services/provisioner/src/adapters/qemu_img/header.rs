//! The format of an image, read from its first bytes without QEMU: an image from elsewhere must not get QEMU to open
//! files of this host that it names.

use std::ops::RangeInclusive;

use contract::ByteCount;

use super::check::{cannot_boot, has_boot_signature};
use crate::ports::DiskError;

/// As much of a file as is inspected: up to the name of an ISO 9660 file system.
pub(super) const HEAD_BYTES: usize = 0x8001 + 5;
/// A qcow2 header up to its last field of fixed length.
const HEADER_BYTES: usize = 104;
/// The disk in an image: a boot loader and a kernel need the least, no VM may have more than the most.
const DISK_SIZE: RangeInclusive<ByteCount> = ByteCount::mib(1)..=*provisioner_domain::bounds::DISK_SIZE.end();

const QCOW2: &[u8] = b"QFI\xfb";
/// Formats that are not accepted: where their magic number is, and their name for a person.
const OTHERS: [(usize, &[u8], &str); 21] = [
    (0, b"KDMV", "a VMDK image"),
    (0, b"COWD", "a VMDK image"),
    (0, b"# Disk DescriptorFile", "the description of a VMDK image"),
    (0x40, b"\x7f\x10\xda\xbe", "a VDI image"),
    (0, b"WithoutFreeSpace", "a Parallels image"),
    (0, b"WithouFreSpacExt", "a Parallels image"),
    (0, b"conectix", "a VHD image"),
    (0, b"vhdxfile", "a VHDX image"),
    (0, b"QED\0", "a QED image"),
    (0, b"LUKS\xba\xbe", "encrypted with LUKS"),
    (0, b"VMA\0", "a Proxmox VMA archive: unpack it first"),
    (0, b"hsqs", "a squashfs file system"),
    (0x8001, b"CD001", "an ISO image of a CD or installer"),
    (257, b"ustar", "a tar archive: unpack it first"),
    (0, b"\x1f\x8b", "packed with gzip: unpack it first"),
    (0, b"\xfd7zXZ", "packed with xz: unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "packed with zstd: unpack it first"),
    (0, b"\x04\x22\x4d\x18", "packed with lz4: unpack it first"),
    (0, b"BZh", "packed with bzip2: unpack it first"),
    (0, b"7z\xbc\xaf", "a 7z archive: unpack it first"),
    (0, b"PK\x03\x04", "a zip archive: unpack it first"),
];
/// Incompatible features of qcow2 version 3 that we accept: dirty and corrupt are QEMU's to judge, compression type.
const KNOWN_FEATURES: u64 = 0b1_1011;
const EXTERNAL_DATA_FILE: u64 = 0b100;

/// What kind of image a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImageKind {
    /// qcow2 without another file.
    Qcow2,
    /// The bytes of the disk.
    Raw,
}

/// Inspects the first bytes of a file of `length` bytes.
///
/// # Errors
/// [`DiskError::UnusableImage`] with the reason: another format, no disk at all, a size that no seed has, a backing file, a
/// data file, encryption.
pub(super) fn inspect(head: &[u8], length: u64) -> Result<ImageKind, DiskError> {
    let unfit = |reason: String| Err(DiskError::UnusableImage(reason));
    if head.is_empty() {
        return unfit("the image is empty".into());
    }
    let has =
        |(at, magic, _): &&(usize, &[u8], &str)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic));
    let other = OTHERS.iter().find(has).map(|(_, _, what)| *what).or(text_in(head));
    if let Some(what) = other {
        return unfit(format!("the image is {what}; qcow2 and raw images can be seeds"));
    }
    if head.starts_with(QCOW2) {
        return inspect_qcow2(head);
    }
    if !has_boot_signature(head) {
        return Err(cannot_boot());
    }
    check_size(length)?;
    Ok(ImageKind::Raw)
}

/// What a server sends instead of an image, with its name for a person.
fn text_in(head: &[u8]) -> Option<&'static str> {
    let begin = String::from_utf8_lossy(&head[..head.len().min(512)]).to_ascii_lowercase();
    let begin = begin.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let html = begin.starts_with("<!doctype html") || begin.starts_with("<html");
    let xml = begin.starts_with("<?xml") || begin.starts_with("<error");
    match (html, xml) {
        (true, _) => Some("an HTML page: is the address that of the image itself?"),
        (_, true) => Some("an XML document: is the address that of the image itself?"),
        _ => None,
    }
}

fn check_size(bytes: u64) -> Result<(), DiskError> {
    if DISK_SIZE.contains(&ByteCount(bytes)) {
        return Ok(());
    }
    let (size, least, most) = (ByteCount(bytes), DISK_SIZE.start(), DISK_SIZE.end());
    Err(DiskError::UnusableImage(format!(
        "the disk in the image has {size}; a seed has from {least} to {most}"
    )))
}

fn inspect_qcow2(header: &[u8]) -> Result<ImageKind, DiskError> {
    let unfit = |reason: String| Err(DiskError::UnusableImage(reason));
    if header.len() < HEADER_BYTES {
        return unfit("the image begins as qcow2 and ends within its header".into());
    }
    let number = |at: usize, bytes: usize| {
        header[at..at + bytes].iter().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let version = number(4, 4);
    let features = match version {
        2 => 0,
        3 => number(72, 8),
        other => {
            return unfit(format!("the image is qcow2 of version {other}; 2 and 3 are known"));
        }
    };
    if number(8, 8) != 0 {
        return unfit(
            "the image has a backing file, which would be a file of this host; flatten it with `qemu-img convert`"
                .into(),
        );
    }
    if features & EXTERNAL_DATA_FILE != 0 {
        return unfit("the image keeps its data in another file; flatten it with `qemu-img convert`".into());
    }
    if features & !(KNOWN_FEATURES | EXTERNAL_DATA_FILE) != 0 {
        return unfit(format!("the image needs features that are not known here ({features:#x})"));
    }
    if number(32, 4) != 0 {
        return unfit("the image is encrypted".into());
    }
    check_size(number(24, 8))?;
    Ok(ImageKind::Qcow2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qcow2(change: impl Fn(&mut [u8])) -> Vec<u8> {
        let mut header = vec![0; HEADER_BYTES];
        header[..4].copy_from_slice(QCOW2);
        header[7] = 3;
        header[24..32].copy_from_slice(&(16u64 << 20).to_be_bytes());
        change(&mut header);
        header
    }

    #[test]
    fn qcow2_and_raw_images_are_accepted() {
        assert_eq!(inspect(&qcow2(|_| ()), 300).expect("plain"), ImageKind::Qcow2);
        assert_eq!(inspect(&disk(), 16 << 20).expect("bytes"), ImageKind::Raw);
    }

    /// The head of a raw disk.
    fn disk() -> Vec<u8> {
        let mut head = vec![0; HEAD_BYTES];
        head[510..512].copy_from_slice(&[0x55, 0xaa]);
        head
    }

    #[test]
    fn what_no_vm_could_boot_from_is_refused_with_what_it_is() {
        let refused = |head: &[u8], length: u64| inspect(head, length).expect_err("no disk").to_string();
        assert_eq!(refused(&[], 0), "the image is empty");
        let noise: Vec<u8> = (0..1024u32).map(|at| (at * 7) as u8).collect();
        assert!(refused(&noise, 1024).contains("boot signature"));
        assert!(refused(&[0; HEAD_BYTES], 1 << 30).contains("boot signature"));
        for page in ["<!DOCTYPE html>", "\u{feff}\n <HTML><head>", "<?xml version='1.0'?><Error/>"] {
            assert!(refused(page.as_bytes(), 15).contains("the address"), "{page}");
        }
        let mut iso = disk();
        iso[0x8001..].copy_from_slice(b"CD001");
        assert!(refused(&iso, 1 << 30).contains("ISO"));
        let mut vdi = disk();
        vdi[0x40..0x44].copy_from_slice(b"\x7f\x10\xda\xbe");
        assert!(refused(&vdi, 1 << 30).contains("VDI"));
    }

    #[test]
    fn a_disk_of_a_size_that_no_seed_has_is_refused() {
        for bytes in [0u64, (1 << 20) - 1, 100 << 40, u64::MAX] {
            let sized = qcow2(|header| header[24..32].copy_from_slice(&bytes.to_be_bytes()));
            let error = inspect(&sized, 300).expect_err("its size").to_string();
            assert!(error.contains("from 1 MiB to 64 TiB"), "{error}");
            assert!(inspect(&disk(), bytes).is_err(), "{bytes}");
        }
    }

    #[test]
    fn an_image_that_would_open_files_of_this_host_is_refused() {
        for (change, text) in [(8usize, "backing file"), (15, "backing file"), (35, "encrypted")] {
            let error = inspect(&qcow2(|header| header[change] = 1), 300).expect_err(text);
            assert!(error.to_string().contains(text), "{error}");
        }
        let data_file = inspect(&qcow2(|header| header[79] = 4), 300).expect_err("a data file");
        assert!(data_file.to_string().contains("another file"), "{data_file}");
        let strange = inspect(&qcow2(|header| header[72] = 1), 300).expect_err("a strange feature");
        assert!(strange.to_string().contains("features"), "{strange}");
        assert!(inspect(&qcow2(|_| ())[..50], 50).is_err(), "a torn header");
    }

    #[test]
    fn another_format_is_named_in_the_error() {
        let error = inspect(b"\x1f\x8b\x08\0\0\0\0\0", 8).expect_err("packed");
        assert!(error.to_string().contains("gzip"), "{error}");
    }
}
