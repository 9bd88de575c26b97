//! The format of an image, read from its first bytes without QEMU: an image from elsewhere must not get QEMU to open
//! files of this host that it names.

use crate::ports::DiskError;

/// As much of a file as is inspected.
pub(super) const HEADER_BYTES: usize = 104;

const QCOW2: &[u8] = b"QFI\xfb";
/// Formats that are not accepted, each with its name for a person.
const OTHERS: [(&[u8], &str); 9] = [
    (b"KDMV", "a VMDK image"),
    (b"conectix", "a VHD image"),
    (b"vhdxfile", "a VHDX image"),
    (b"QED\0", "a QED image"),
    (b"\x1f\x8b", "packed with gzip: unpack it first"),
    (b"\xfd7zXZ", "packed with xz: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd: unpack it first"),
    (b"BZh", "packed with bzip2: unpack it first"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
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

/// Inspects the first bytes of a file.
///
/// # Errors
/// [`DiskError::UnusableImage`] with the reason: another format, a backing file, a data file, encryption.
pub(super) fn inspect(header: &[u8]) -> Result<ImageKind, DiskError> {
    let unfit = |reason: String| Err(DiskError::UnusableImage(reason));
    if let Some((_, what)) = OTHERS.iter().find(|(magic, _)| header.starts_with(magic)) {
        return unfit(format!("the image is {what}; qcow2 and raw images can be seeds"));
    }
    if !header.starts_with(QCOW2) {
        return Ok(ImageKind::Raw);
    }
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
    Ok(ImageKind::Qcow2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qcow2(change: impl Fn(&mut [u8])) -> Vec<u8> {
        let mut header = vec![0; HEADER_BYTES];
        header[..4].copy_from_slice(QCOW2);
        header[7] = 3;
        change(&mut header);
        header
    }

    #[test]
    fn qcow2_and_raw_images_are_accepted() {
        assert_eq!(inspect(&qcow2(|_| ())).expect("plain"), ImageKind::Qcow2);
        assert_eq!(inspect(&[0; 512]).expect("bytes"), ImageKind::Raw);
        assert_eq!(inspect(&[]).expect("no bytes"), ImageKind::Raw);
    }

    #[test]
    fn an_image_that_would_open_files_of_this_host_is_refused() {
        for (change, text) in [(8usize, "backing file"), (15, "backing file"), (35, "encrypted")] {
            let error = inspect(&qcow2(|header| header[change] = 1)).expect_err(text);
            assert!(error.to_string().contains(text), "{error}");
        }
        let data_file = inspect(&qcow2(|header| header[79] = 4)).expect_err("a data file");
        assert!(data_file.to_string().contains("another file"), "{data_file}");
        let strange = inspect(&qcow2(|header| header[72] = 1)).expect_err("a strange feature");
        assert!(strange.to_string().contains("features"), "{strange}");
        assert!(inspect(&qcow2(|_| ())[..50]).is_err(), "a torn header");
    }

    #[test]
    fn another_format_is_named_in_the_error() {
        let error = inspect(b"\x1f\x8b\x08\0\0\0\0\0").expect_err("packed");
        assert!(error.to_string().contains("gzip"), "{error}");
    }
}
