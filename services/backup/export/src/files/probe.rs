//! Which file system, or other thing, begins somewhere: recognised by its magic numbers.

use std::fmt;
use std::io;

use super::window::Window;

/// The magic number of btrfs and the descriptor of ISO 9660 lie this far in.
const HEAD_BYTES: usize = 68 * 1024;

/// What a partition or disk holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are well-known names")]
pub enum FileSystem {
    /// ext2, ext3 or ext4.
    Ext,
    /// FAT12, FAT16 or FAT32.
    Fat,
    ExFat,
    Xfs,
    Btrfs,
    Ntfs,
    Iso9660,
    SquashFs,
    /// A physical volume of LVM 2.
    Lvm,
    Luks,
    /// A member of a Linux software RAID.
    Raid,
    Swap,
    /// Nothing that is known, or nothing.
    Unknown,
}

impl FileSystem {
    /// Whether folders and files of it can be shown without a mount.
    pub fn is_readable(self) -> bool {
        matches!(self, FileSystem::Ext | FileSystem::Fat)
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileSystem::Ext => "ext2/3/4",
            FileSystem::Fat => "FAT",
            FileSystem::ExFat => "exFAT",
            FileSystem::Xfs => "XFS",
            FileSystem::Btrfs => "btrfs",
            FileSystem::Ntfs => "NTFS",
            FileSystem::Iso9660 => "ISO 9660",
            FileSystem::SquashFs => "SquashFS",
            FileSystem::Lvm => "LVM",
            FileSystem::Luks => "LUKS",
            FileSystem::Raid => "Linux RAID",
            FileSystem::Swap => "swap space",
            FileSystem::Unknown => "nothing known",
        })
    }
}

/// What begins at the window's first byte.
pub(super) fn probe(window: &mut Window) -> io::Result<FileSystem> {
    Ok(recognise(&window.head(HEAD_BYTES)?))
}

fn recognise(head: &[u8]) -> FileSystem {
    let at = |offset: usize, magic: &[u8]| head.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let label = |sector: usize| at(sector * 512, b"LABELONE") && at(sector * 512 + 24, b"LVM2 001");
    // Containers first: what they hold may look like a file system at the same place.
    if at(0, b"LUKS\xba\xbe") {
        FileSystem::Luks
    } else if (0..4).any(label) {
        FileSystem::Lvm
    } else if at(4096, &[0xfc, 0x4e, 0x2b, 0xa9]) || at(0, &[0xfc, 0x4e, 0x2b, 0xa9]) {
        FileSystem::Raid
    } else if at(0, b"XFSB") {
        FileSystem::Xfs
    } else if at(0, b"hsqs") {
        FileSystem::SquashFs
    } else if at(3, b"NTFS    ") {
        FileSystem::Ntfs
    } else if at(3, b"EXFAT   ") {
        FileSystem::ExFat
    } else if at(0x10040, b"_BHRfS_M") {
        FileSystem::Btrfs
    } else if at(1024 + 0x38, &[0x53, 0xef]) {
        FileSystem::Ext
    } else if at(4086, b"SWAPSPACE2") {
        FileSystem::Swap
    } else if at(0x8001, b"CD001") {
        FileSystem::Iso9660
    } else if is_fat(head) {
        FileSystem::Fat
    } else {
        FileSystem::Unknown
    }
}

/// FAT has no magic number, but its first sector must make sense (Microsoft's specification, "Boot sector").
fn is_fat(head: &[u8]) -> bool {
    let Some(sector) = head.first_chunk::<512>() else { return false };
    let bytes_per_sector = u16::from_le_bytes([sector[11], sector[12]]);
    let jumps = (sector[0] == 0xeb && sector[2] == 0x90) || sector[0] == 0xe9;
    sector[510..] == [0x55, 0xaa]
        && jumps
        && matches!(bytes_per_sector, 512 | 1024 | 2048 | 4096)
        && sector[13].is_power_of_two()
        && (sector[14], sector[15]) != (0, 0)
        && matches!(sector[16], 1 | 2)
        && (sector[21] == 0xf0 || sector[21] >= 0xf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_with_a_magic_number_is_recognised_and_noise_is_not() {
        for (offset, magic, expected) in [
            (0, &b"XFSB"[..], FileSystem::Xfs),
            (0, b"LUKS\xba\xbe\x00\x02", FileSystem::Luks),
            (0x10040, b"_BHRfS_M", FileSystem::Btrfs),
            (3, b"NTFS    ", FileSystem::Ntfs),
            (3, b"EXFAT   ", FileSystem::ExFat),
            (4086, b"SWAPSPACE2", FileSystem::Swap),
            (0x8001, b"CD001", FileSystem::Iso9660),
            (0, b"hsqs", FileSystem::SquashFs),
            (1080, &[0x53, 0xef], FileSystem::Ext),
            (4096, &[0xfc, 0x4e, 0x2b, 0xa9], FileSystem::Raid),
            (77, b"nothing", FileSystem::Unknown),
        ] {
            let mut head = vec![0; HEAD_BYTES];
            head[offset..offset + magic.len()].copy_from_slice(magic);
            assert_eq!(recognise(&head), expected);
        }
        let mut head = vec![0; HEAD_BYTES];
        head[512..520].copy_from_slice(b"LABELONE");
        head[536..544].copy_from_slice(b"LVM2 001");
        assert_eq!(recognise(&head), FileSystem::Lvm);
        assert_eq!(recognise(&[]), FileSystem::Unknown);
        assert_eq!(recognise(&[0; 512]), FileSystem::Unknown);
    }
}
