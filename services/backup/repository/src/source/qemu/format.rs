//! Formats of image files, detected by their magic numbers.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;

/// A format of image files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// The bytes of the disk and nothing else.
    Raw,
    /// QEMU's, version 2 and 3.
    Qcow2,
    /// VMware's.
    Vmdk,
    /// VirtualBox's.
    Vdi,
    /// Hyper-V's current one.
    Vhdx,
    /// Hyper-V's older one, also called VHD; QEMU's name is `vpc`.
    Vpc,
    /// QEMU's, deprecated.
    Qed,
}

/// Offset and magic number of each format: `docs/interop` of QEMU, and its block drivers.
const MAGICS: &[(u64, &[u8], ImageFormat)] = &[
    (0, b"QFI\xfb", ImageFormat::Qcow2),
    (0, b"KDMV", ImageFormat::Vmdk),
    (0, b"COWD", ImageFormat::Vmdk),
    (0, b"# Disk DescriptorFile", ImageFormat::Vmdk),
    (0x40, b"\x7f\x10\xda\xbe", ImageFormat::Vdi),
    (0, b"vhdxfile", ImageFormat::Vhdx),
    (0, b"conectix", ImageFormat::Vpc),
    (0, b"QED\0", ImageFormat::Qed),
];
/// All magic numbers are within this.
const PROBE_BYTES: usize = 128;

impl ImageFormat {
    const ALL: [ImageFormat; 7] = [
        ImageFormat::Raw,
        ImageFormat::Qcow2,
        ImageFormat::Vmdk,
        ImageFormat::Vdi,
        ImageFormat::Vhdx,
        ImageFormat::Vpc,
        ImageFormat::Qed,
    ];

    /// QEMU's name of it.
    pub fn name(self) -> &'static str {
        match self {
            ImageFormat::Raw => "raw",
            ImageFormat::Qcow2 => "qcow2",
            ImageFormat::Vmdk => "vmdk",
            ImageFormat::Vdi => "vdi",
            ImageFormat::Vhdx => "vhdx",
            ImageFormat::Vpc => "vpc",
            ImageFormat::Qed => "qed",
        }
    }

    /// The format by the file's magic number; raw where there is none. A guest can write a magic number onto its own raw
    /// disk: give the format where that matters.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn probe(path: &Path) -> io::Result<ImageFormat> {
        let file = File::open(path)?;
        let mut begin = [0; PROBE_BYTES];
        let mut filled = 0;
        while filled < begin.len() {
            match file.read_at(&mut begin[filled..], filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        Ok(ImageFormat::of(&begin[..filled]))
    }

    fn of(begin: &[u8]) -> ImageFormat {
        let fits =
            |at: u64, magic: &[u8]| begin.get(at as usize..).is_some_and(|rest| rest.starts_with(magic));
        MAGICS
            .iter()
            .find(|(at, magic, _)| fits(*at, magic))
            .map_or(ImageFormat::Raw, |(_, _, format)| *format)
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is not the name of an image format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an image format (raw, qcow2, vmdk, vdi, vhdx, vpc, qed)")]
pub struct NotAnImageFormat(String);

impl FromStr for ImageFormat {
    type Err = NotAnImageFormat;

    fn from_str(name: &str) -> Result<ImageFormat, NotAnImageFormat> {
        let found = ImageFormat::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| NotAnImageFormat(name.to_owned()))
    }
}
